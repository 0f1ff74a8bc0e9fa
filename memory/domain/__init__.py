"""Conversations, runs and query criteria, independent of any store."""
