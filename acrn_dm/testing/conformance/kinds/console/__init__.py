"""Rules of consoles (virtio 5.3): bytes, ports, sizes."""
