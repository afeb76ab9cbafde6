"""Drivers of the host's side: what executes a disk's requests, what carries a card's frames, chosen by name."""
