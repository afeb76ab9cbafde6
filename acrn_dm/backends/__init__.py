"""Backends: who moves the data of a virtio device."""
