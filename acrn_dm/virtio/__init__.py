"""virtio: the device base class, its registers and features, queues, and the PCI transport."""
