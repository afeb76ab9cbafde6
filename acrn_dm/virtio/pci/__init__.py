"""The PCI transport of virtio (4.1): modern and legacy registers, capabilities, interrupts."""
