"""The numbers of a vfio-user device: its regions and interrupts, and what their descriptions say (linux/vfio.h)."""

DEVICE_RESETS, DEVICE_IS_PCI = 1, 2  # flags of DEVICE_GET_INFO

ROM, CONFIG, REGIONS = 6, 7, 9  # 0-5: BARs, 8: VGA
READ, WRITE, MAPPED, HAS_CAPABILITIES = 1, 2, 4, 8  # flags of DEVICE_GET_REGION_INFO

INTX, MSI, MSIX, ERR, REQ = range(5)
KINDS = 5  # of interrupts
EVENTFD, MASKABLE, AUTOMASKED = 1, 2, 4  # flags of DEVICE_GET_IRQ_INFO
