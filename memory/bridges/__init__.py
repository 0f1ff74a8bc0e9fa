"""Frameworks that keep their conversations in a store of ours. Each is imported by its own name only."""
