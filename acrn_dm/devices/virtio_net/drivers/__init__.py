"""Packet drivers behind a card: descriptors for those in Python, and the built-in one, which is a tap."""
