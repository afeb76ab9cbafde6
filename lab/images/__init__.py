"""What boots: a disk for firmware."""
