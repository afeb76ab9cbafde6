"""The built-in devices: the board's chips, PCI functions and virtio devices, and what they share."""
