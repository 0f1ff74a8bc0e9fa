"""Conversations as other programs write them: what they keep becomes conversations and runs, and nothing of it is lost."""
