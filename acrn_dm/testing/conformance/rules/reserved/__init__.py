"""Rules of the reserved feature bits (virtio 6): what a device owes its driver that has accepted one of them."""
