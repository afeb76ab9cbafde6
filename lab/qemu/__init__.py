"""QEMU of this host or of a newer suite (unpacked, never installed), and guests of it whose devices are ours."""
