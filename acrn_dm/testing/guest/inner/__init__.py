"""The inner guest: its user space, and a shell in it."""
