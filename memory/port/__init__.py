"""What an adapter must do, and what it needs for that."""
