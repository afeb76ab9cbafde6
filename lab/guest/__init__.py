"""The inner guest: its user space, a shell in it, and its kernel's log beside that under plain QEMU."""
