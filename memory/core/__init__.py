"""The store and its units of work, implemented once for all repositories."""
