"""Handlers and data planes in C, for tests of what runs them."""
