"""Faults before a disk: a block driver for acrn-dm. See ``driver``."""
