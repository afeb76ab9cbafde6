"""The split virtqueue (virtio 1.4, 2.7) in C: layout, walk, and what a device does with its side."""
