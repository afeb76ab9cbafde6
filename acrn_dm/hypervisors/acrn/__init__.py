"""ACRN: its hypervisor through the kernel modules hsm and vhm."""
