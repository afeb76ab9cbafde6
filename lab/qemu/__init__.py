"""Guests of QEMU's, of this host's or of a newer one, whose devices are ours."""
