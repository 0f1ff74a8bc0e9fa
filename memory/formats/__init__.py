"""Import formats of other programs. Everything in them becomes conversations and runs; nothing is lost."""
