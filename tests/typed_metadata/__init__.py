"""Metadata with a type, and values that JSON lacks."""

URLS = ["memory://"]
"""The stores that the tests of this folder, and of the pydantic models, use."""
