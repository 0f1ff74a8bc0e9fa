"""The port: the interface that adapters implement, and helpers for implementing it."""
