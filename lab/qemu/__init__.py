"""QEMU of a newer suite than this host's, unpacked and never installed."""
