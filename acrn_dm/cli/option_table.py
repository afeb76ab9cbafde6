"""The options: one row each, from which parsing, TOML keys, abbreviations and ``--help`` are made."""

from typing import Any

from acrn_dm.cli import platform, values
from acrn_dm.cli.grammar import Effect, Group, Option

SHORT_OPTIONS = "AhYvE:k:r:B:s:m:l:U:G:i:"  # the original's, word for word

GUEST = (
    Option(name="memsize", short="m", metavar="SIZE", group=Group.GUEST,
           parse=values.memory_size, field="memory_bytes", toml=(int,),
           help="guest memory: 512 (MiB), 512M, 2G; a multiple of 2 MiB, at least 128 MiB [256M]"),
    Option(name="cpus", metavar="N", group=Group.GUEST, original=False,
           parse=values.count, field="vcpus", toml=(int,),
           help="number of virtual CPUs, 1 to 8 [1]"),
    Option(name="cpu_affinity", metavar="ID,ID", group=Group.GUEST,
           parse=values.lapic_ids, field="cpu_affinity", toml=(int,), listing=True,
           help="host CPUs by their decimal LAPIC ids; one virtual CPU for each"),
    Option(name="uuid", metavar="UUID", group=Group.GUEST, original=False, parse=values.uuid, field="uuid",
           help="the guest's UUID in its SMBIOS tables [made from the host's machine id and the VM's name]"),
    Option(name="kernel", short="k", metavar="PATH", group=Group.GUEST, parse=values.path, field="kernel",
           help="kernel to boot: a bzImage or an uncompressed vmlinux"),
    Option(name="ramdisk", short="r", metavar="PATH", group=Group.GUEST, parse=values.path, field="ramdisk",
           help="initial RAM disk for the kernel"),
    Option(name="bootargs", short="B", metavar="TEXT", group=Group.GUEST, parse=values.bootargs, field="bootargs",
           help="the kernel's command line"),
    Option(name="ovmf", metavar="[w,]FILE", group=Group.GUEST, parse=platform.ovmf, field="firmware",
           help="boot firmware: one image, or [w,]code=FILE,vars=FILE; with w the guest's variables are kept"),
    Option(name="elf_file", short="E", metavar="PATH", group=Group.GUEST, parse=values.path, field="elf",
           help="multiboot ELF image (32 or 64 bits) to boot instead of a kernel"),
)  # fmt: skip

DEVICES = (
    Option(name="pci_slot", short="s", metavar="SLOT,DEVICE[,OPTIONS]", group=Group.DEVICES,
           parse=values.pci_slot, field="devices", repeat=True,
           help="a PCI device; SLOT is slot, slot:func or bus:slot:func. "
                "'-s help' lists the devices, '-s DEVICE,help' the options of one"),
    Option(name="lpc", short="l", metavar="COM,BACKEND[,wait]", group=Group.DEVICES,
           parse=values.lpc_uart, field="uarts", repeat=True,
           help="serial port com1 to com5 on stdio, tcp:PORT or a tty's path; com5,PATH,IOBASE,IRQ. For a reader that "
                "is too slow 64 KiB are kept, the guest waits 0.1 s, the oldest is dropped; with 'wait' it waits on"),
    Option(name="windows", group=Group.DEVICES, field="windows",
           help="PCI ids that the virtio drivers of a Windows guest look for"),
    Option(name="virtio_msi", group=Group.DEVICES, field="virtio_msi",
           help="virtio devices have one MSI vector instead of MSI-X"),
    Option(name="virtio_poll", metavar="NS", group=Group.DEVICES,
           parse=values.poll_period, field="virtio_poll_ns", toml=(int,),
           help="poll the queues with this period, 1 to 10000000 ns, instead of waiting for kicks"),
    Option(name="debugexit", group=Group.DEVICES, field="debugexit",
           help="a write to port 0xf4 powers the guest off"),
)  # fmt: skip

RUN = (
    Option(name="hypervisor", metavar="NAME", group=Group.RUN, original=False, parse=values.word, field="hypervisor",
           help="auto, or one of '--hypervisor help' [auto]"),
    Option(name="allow-slow-kvm", group=Group.RUN, original=False, field="allow_slow",
           help="use /dev/kvm even where it is known to be unusably slow"),
    Option(name="hugepages", metavar="on|off|auto", group=Group.RUN, original=False,
           parse=values.hugepages, field="hugepages",
           help="guest memory in huge pages of the host; auto: if the hypervisor wants them and has enough [auto]"),
    Option(name="dump-guest-core", metavar="on|off", group=Group.RUN, original=False,
           parse=values.on_off, field="dump_guest_core",
           help="guest memory in core dumps of this process [off]"),
    Option(name="user", metavar="USER[:GROUP]", group=Group.RUN, original=False, parse=values.user, field="user",
           help="once all is open, be this user instead of root, in no other group; processes of devices, too"),
    Option(name="sandbox", metavar="on|off|strict", group=Group.RUN, original=False,
           parse=values.sandbox, field="sandbox",
           help="once all is open, take all rights from this process that it does not need; strict: or don't start "
                "[off]"),
    Option(name="shutdown-timeout", metavar="S", group=Group.RUN, original=False,
           parse=values.seconds, field="shutdown_timeout_s", toml=(int, float),
           help="seconds that the guest has after its power button was pressed, before it is forced off [30]"),
    Option(name="cmd_monitor", metavar="PATH", group=Group.RUN, parse=values.socket_path, field="command_monitor",
           help="take commands (destroy, resume, blkrescan, blkthrottle, driver, set_link), tell events, here"),
    Option(name="manager-directory", metavar="DIR", group=Group.RUN, original=False,
           parse=values.directory, field="manager_directory",
           help=f"where acrnctl looks for this machine's socket; none: nowhere [{values.MANAGER_DIRECTORY}]"),
    Option(name="logger_setting", metavar="LIST", group=Group.RUN, parse=values.logger_setting, field="logging",
           help="NAME,level=N joined by ';': console, kmsg and disk; "
                "1 error, 2 warning, 3 notice, 4 info, 5 debug [console,level=3]"),
)  # fmt: skip

ACRN = (
    Option(name="rtvm", group=Group.ACRN, field="rtvm",
           help="a real-time guest, to which its local APICs are passed through"),
    Option(name="lapic_pt", group=Group.ACRN, field="lapic_pt",
           help="pass the local APICs through; only with --rtvm, which implies it"),
    Option(name="enable_trusty", group=Group.ACRN, field="enable_trusty", help="a guest with a secure world"),
    Option(name="intr_monitor", metavar="T,P,D,L", group=Group.ACRN,
           parse=platform.interrupt_monitor, field="interrupt_monitor",
           help="a device with more than T interrupts a second, looked at every P s, gets them D ms later for L ms"),
)  # fmt: skip

CONFIG = (
    Option(name="config", metavar="FILE.toml", group=Group.CONFIG, original=False, in_file=False,
           parse=values.path, field="config", repeat=True,
           help="read options from a file; the command line, and a later file, override it"),
    Option(name="plugins", metavar="NAME,NAME", group=Group.CONFIG, original=False,
           parse=values.names, field="plugins", listing=True,
           help="load only these of the installed plugins; no:NAME,no:NAME: all but these. 'list' shows what there is. "
                "ACRN_DM_PLUGINS says the same for every start [all]"),
    Option(name="no-plugins", group=Group.CONFIG, original=False, field="no_plugins",
           help="load no installed plugins"),
)  # fmt: skip

CHECK = (
    Option(name="dry-run", group=Group.CHECK, original=False, in_file=False, field="dry_run",
           help="show the machine that would run and what is missing on this host; open nothing"),
    Option(name="json", group=Group.CHECK, original=False, in_file=False, field="json",
           help="with --dry-run, --plugins list or a help about devices: as JSON"),
    Option(name="help", short="h", group=Group.CHECK, in_file=False, field="help", help="show this text"),
    Option(name="version", short="v", group=Group.CHECK, in_file=False, field="version", help="show the version"),
)  # fmt: skip


def _ignored(name: str, metavar: str | None, text: str, note: str, **more: Any) -> Option:
    text += "; ignored with a warning"
    return Option(name=name, metavar=metavar, group=Group.PLATFORM, effect=Effect.IGNORE, help=text, note=note, **more)


def _refused(name: str, metavar: str | None, text: str, note: str, **more: Any) -> Option:
    text += "; refused"
    return Option(name=name, metavar=metavar, group=Group.PLATFORM, effect=Effect.REFUSE, help=text, note=note, **more)


# Ignored is what changes how fast the guest runs, refused what changes which guest it is.
PLATFORM = (
    _ignored("ssram", "SPEC", "software SRAM regions", "no cache is reserved for the guest: software SRAM is missing",
             parse=platform.ssram),
    _refused("acpidev_pt", "HID[,UID]", "pass an ACPI device through", "passthrough of ACPI devices is missing",
             parse=platform.acpi_device),
    _refused("mmiodev_pt", "BASE,SIZE", "pass an MMIO range through", "passthrough of MMIO ranges is missing",
             parse=platform.mmio_device),
    _refused("vtpm2", "sock_path=PATH", "a virtual TPM", "a TPM in front of swtpm is missing", parse=platform.vtpm),
)  # fmt: skip


def _obsolete(name: str, metavar: str | None, note: str, **more: Any) -> Option:
    return Option(name=name, metavar=metavar, help=note, note=note, group=Group.OBSOLETE, effect=Effect.IGNORE, **more)


OBSOLETE = (
    _obsolete("acpi", None, "ACPI tables are always built", short="A"),
    _obsolete("mptgen", None, "the firmware tables are always built", short="Y"),
    _obsolete("gvtargs", "TEXT", "GVT-g is no more", short="G"),
    _obsolete("ioc_node", "PATH", "the I/O controller is no more", short="i"),
    _obsolete("mac_seed", "TEXT", "write it behind the device: -s SLOT,virtio-net,tap=NAME,mac_seed=TEXT"),
    _obsolete("vsbl", "PATH", "the boot loader is no more; boot a kernel with -k"),
    _obsolete("part_info", "PATH", "partition information was for vsbl"),
    _obsolete("iasl", "PATH", "the ACPI tables need no compiler"),
    _obsolete("pm_notify_channel", "NAME", "power events need no channel", parse=platform.power_channel),
    _obsolete("pm_by_vuart", "TEXT", "power events need no serial port"),
)  # fmt: skip

OPTIONS = (*GUEST, *DEVICES, *RUN, *ACRN, *CONFIG, *CHECK, *PLATFORM, *OBSOLETE)

# What to do about options that are in no table.
REMOVED = {
    "-U": "VM UUIDs were removed; give the VM's name, or --uuid for SMBIOS",
    "-c": "the number of CPUs is --cpus N, or --cpu_affinity with host LAPIC ids",
    "--memory": "the memory size is -m SIZE",
}
