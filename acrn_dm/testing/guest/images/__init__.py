"""What boots: the parts of an initramfs, and archives as the kernel reads them."""
