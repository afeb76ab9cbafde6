"""What boots: the parts of an initramfs, archives as the kernel reads them, a disk for firmware."""
