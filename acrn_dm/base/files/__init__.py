"""Files of the host: who uses them, locks, descriptors, private directories."""
