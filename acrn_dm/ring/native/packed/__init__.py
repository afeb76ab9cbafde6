"""The packed virtqueue (virtio 1.4, 2.8) in C: layout, walk, and what a device does with its side."""
