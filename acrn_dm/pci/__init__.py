"""PCI: functions with their configuration space, BARs, MSI, MSI-X and INTx, and the bus that finds them."""
