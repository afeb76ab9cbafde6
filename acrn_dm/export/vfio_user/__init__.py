"""vfio-user's server: a PCI function as another program's virtual machine has it (QEMU's ``vfio-user-pci``)."""
