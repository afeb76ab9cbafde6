"""Disk images: opening, reading, writing, and what is trusted of them."""
