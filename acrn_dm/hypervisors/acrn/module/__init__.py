"""The kernel's module of ACRN: its structures, numbers and errors."""
