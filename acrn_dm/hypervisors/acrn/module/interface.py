"""Facts about ACRN's two interfaces that need no module: where they are, and what only their guests can have."""

HSM_PATH = "/dev/acrn_hsm"
VHM_PATH = "/dev/acrn_vhm"
IOAPIC_PINS = 48
ACRN_OPTIONS = ("rtvm", "lapic_pt", "enable_trusty", "intr_monitor")  # what a guest on no other hypervisor can have
