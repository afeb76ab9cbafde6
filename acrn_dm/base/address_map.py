"""The address map: what lies where in the guest's memory and among its ports. ABI of the original device model.

Imports nothing, so that PCI, platform devices and hypervisors can all name the same windows.
"""

KIB = 1 << 10
MIB = 1 << 20

# RAM: [0, lowmem) with lowmem <= LOWMEM_LIMIT, the rest from HIGHMEM_BASE on.
LOWMEM_LIMIT = 0x8000_0000
HIGHMEM_BASE = 0x1_0000_0000
LEGACY_HOLE_BASE = 0xA_0000  # VGA and ROM area: backed by RAM, but not reported as RAM
LEGACY_HOLE_END = 0x10_0000

# PCI windows; each END is the first address behind the window.
PCI_MMIO32_BASE = 0x8000_0000
PCI_MMIO32_END = 0xE000_0000
PCI_MMIO64_BASE = 0x40_0000_0000
PCI_MMIO64_END = 0x80_0000_0000
PCI_IO_BASE = 0x2000  # BARs are placed here; below are the platform's ports
PCI_IO_END = 0x1_0000
ECAM_BASE = 0xE000_0000
ECAM_BUS_SIZE = MIB  # 32 devices * 8 functions * 4 KiB
ECAM_MAX_BUSES = 256

# Everything from the ECAM to 4 GiB is one reserved E820 entry: ECAM, from 0xF000_0000 on memory of devices that are
# passed through, interrupt controllers, firmware.
PLATFORM_BASE = 0xE000_0000
PLATFORM_END = 0x1_0000_0000
IOAPIC_BASE = 0xFEC0_0000
LAPIC_BASE = 0xFEE0_0000

# What a BIOS leaves: interrupt vectors and data area at 0, services and tables in the upper part of the legacy hole.
BIOS_DATA_AREA = 0x400
BIOS_DATA_END = 0x500
BIOS_SEGMENT = 0xF_0000
BIOS_CALLS = 0xF_2000
MP_BASE = 0xF_0000
MP_END = 0xF_1000
SMBIOS_BASE = 0xF_1000
SMBIOS_END = 0xF_2000
ACPI_BASE = 0xF_2400
ACPI_END = LEGACY_HOLE_END

# Boot images.
KERNEL_BASE = 16 * MIB  # the bzImage file, real-mode part included
PVH_GDT = 0x5000  # Linux's PVH entry maps only the first GiB: everything it reads early lies low
PVH_START_INFO = 0x6000
PVH_MODULE_LIST = 0x6100
PVH_MEMORY_MAP = 0x7000
PVH_COMMAND_LINE = 0x2_0000
MULTIBOOT_INFO = 0x2_0000
MULTIBOOT_MODULES = 0x2_0200
MULTIBOOT_MEMORY_MAP = 0x2_0400
MULTIBOOT_COMMAND_LINE = 0x2_1000

# Ports.
SMI_COMMAND = 0xB2
ACPI_ENABLE = 0xA0  # values written to SMI_COMMAND
ACPI_DISABLE = 0xA1
PM1A_EVENT = 0x400  # status, then enable: 2 bytes each
PM1A_CONTROL = 0x404
ELCR = 0x4D0  # edge/level control of the two 8259s
FW_CFG = 0x510  # the selector of QEMU's configuration device; its data and DMA registers follow
FW_CFG_PORTS = 12
PCI_CONFIG_ADDRESS = 0xCF8  # 0xCF8..0xCFF are never PCI I/O space
PCI_CONFIG_END = 0xD00
RESET_CONTROL = 0xCF9
RESET_FULL = 0x0E  # system reset, CPU reset and full reset: power-cycles the machine
KEYBOARD_DATA = 0x60
KEYBOARD_STATUS = 0x64
RTC_INDEX = 0x70
RTC_CENTURY = 0x32  # CMOS byte

# Interrupts.
SCI_IRQ = 9  # level, active high
PIT_GSI = 2  # ISA IRQ 0 arrives at IOAPIC pin 2
