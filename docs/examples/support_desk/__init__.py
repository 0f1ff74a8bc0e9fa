"""A support desk: an example of an application that keeps conversations beside tables of its own."""
