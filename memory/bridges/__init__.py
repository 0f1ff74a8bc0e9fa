"""Integrations for frameworks. Each is a module of its own, imported only by its name."""
