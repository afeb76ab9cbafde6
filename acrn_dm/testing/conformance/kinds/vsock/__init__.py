"""Rules of socket devices (virtio 5.10): addresses, connections, credit."""
