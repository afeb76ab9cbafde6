"""The packed virtqueue (virtio 1.4, 2.8): its layout, its format, a driver side and a model of the device side."""
