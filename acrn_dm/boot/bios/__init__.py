"""Legacy of a BIOS: what it leaves in memory below 1 MiB, for a guest that is entered without firmware."""
