"""Cards on a loop, or on a bad cable: a packet driver for acrn-dm. See ``card``."""
