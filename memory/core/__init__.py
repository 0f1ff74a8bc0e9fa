"""What an application uses: the store and its units of work, written once over the port."""
