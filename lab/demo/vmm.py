"""The demonstration's machine as command lines: of acrn-dm, and of QEMU, to tell whose fault a failure is."""

import sys
from pathlib import Path

import attrs

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.qemu import PROGRAM

NAMES = ("acrn-dm", "qemu")


@attrs.frozen(kw_only=True)
class Machine:
    """What both of them are to build."""

    kernel: str
    initramfs: str
    disk: str
    tap: str
    console: str  # UNIX socket the VMM listens on: the virtio console
    report: str  # UNIX socket the VMM listens on: the console's second port, named "report"
    medium: str = ""  # what virtio-blk is given instead of the disk's path; acrn-dm alone
    card: str = ""  # further options of the network card, each with its comma; acrn-dm alone
    accelerator: str = "kvm"  # of QEMU alone; acrn-dm has no other
    memory_mib: int = 256


def command(name: str, machine: Machine) -> list[str]:
    """The VMM's argv. The first serial port is its standard output."""
    return _acrn_dm(machine) if name == "acrn-dm" else _qemu(machine)


def rings(argv: list[str], machine: Machine) -> str:
    """Which drivers get packed rings of the VMM of *argv*: of acrn-dm those whose data it moves by itself."""
    if argv[0] == PROGRAM:
        return "packed: none"
    elsewhere = {"virtio_blk": bool(machine.medium), "virtio_net": "vhost" in machine.card}
    drivers = ("virtio_blk", "virtio_net", "virtio_console", "virtio_rng")
    return " ".join(["packed:", *(driver for driver in drivers if not elsewhere.get(driver))])


def _acrn_dm(machine: Machine) -> list[str]:
    return [
        str(Path(sys.prefix, "bin", "acrn-dm")),
        *("--hypervisor", "kvm", "-m", f"{machine.memory_mib}M"),
        *("-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", "com1,stdio"),
        *("-s", f"3,virtio-blk,{machine.medium or machine.disk}"),
        *("-s", f"4,virtio-net,tap={machine.tap}{machine.card}"),
        *("-s", f"5,virtio-console,@socket:con={machine.console},socket:report={machine.report}"),
        *("-s", "6,virtio-rnd"),
        *("-k", machine.kernel, "-r", machine.initramfs, "-B", COMMAND_LINE),
        "demo",
    ]


def _qemu(machine: Machine) -> list[str]:
    return [
        *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc,usb=off,vmport=off", "-accel", machine.accelerator, "-m", str(machine.memory_mib)),
        *("-cpu", "host" if machine.accelerator == "kvm" else "qemu64", "-serial", "stdio"),
        *("-drive", f"if=none,id=disk,format=raw,cache=writethrough,file={machine.disk}"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", f"tap,id=net,ifname={machine.tap},script=no,downscript=no"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=con,path={machine.console},server=on,wait=off", "-device", "virtconsole,chardev=con"),
        *("-chardev", f"socket,id=report,path={machine.report},server=on,wait=off"),
        *("-device", "virtserialport,chardev=report,name=report", "-device", "virtio-rng-pci"),
        *("-kernel", machine.kernel, "-initrd", machine.initramfs, "-append", COMMAND_LINE),
    ]
