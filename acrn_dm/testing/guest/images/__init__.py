"""Images that boot: the parts of an initramfs, and archives as the kernel reads them."""
