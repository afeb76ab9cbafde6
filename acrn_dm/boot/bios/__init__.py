"""What a BIOS leaves in memory below 1 MiB, for a guest that is entered without firmware."""
