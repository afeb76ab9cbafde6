"""A guest's kernel log, beside that of the same guest under plain QEMU."""
