"""The grammar of single values: a string from the command line (or TOML) in, a checked value out.

Every parser raises ValueError with one line that says what is allowed; ``parse`` adds which option it was.
"""

import math
import os
import re
from pathlib import Path
from uuid import UUID

import attrs

from acrn_dm.base.address_map import MIB
from acrn_dm.base.decimal_text import decimal
from acrn_dm.base.process.users import User, find
from acrn_dm.base.records import frozen
from acrn_dm.base.sandbox import MODES
from acrn_dm.base.sockets.paths import path_problem
from acrn_dm.contract.config import DeviceSpec, UartSpec
from acrn_dm.contract.option_text import split_options, split_raw
from acrn_dm.pci.place import parse_bdf

_NUMBER = r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}"
_MEMORY = re.compile(rf"\s*({_NUMBER})\s*([kmg]?)(?:i?b)?\Z", re.IGNORECASE)
_UNITS = {"k": 10, "m": 20, "g": 30}
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")

MAX_BOOTARGS = 2047  # the original's BOOT_ARG_LEN is 2048 with the NUL
MAX_POLL_NS = 10_000_000
MAX_APIC_ID = 0xFFFF_FFFE  # x2APIC; all ones is broadcast
MAX_TIMEOUT_S = 86400.0
DEBUG_LEVEL, MAX_LOG_LEVEL = 5, 6  # of --logger_setting: the last that means something, the last that is taken
MANAGER_DIRECTORY = Path("/run/acrn/mngr")  # the tools of ACRN scan it


def c_number(text: str) -> int:
    """Read an unsigned number as strtoul with base 0 does: decimal, 0x hex, or octal behind a 0."""
    if not re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text!r} is not a number; write it in decimal or as 0x hex")
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if len(text) > 1 and text[0] == "0":
        if not re.fullmatch("[0-7]+", text):
            raise ValueError(f"{text!r} is not a number: a leading 0 means octal")
        return int(text, 8)
    return int(text)


def uuid(text: str) -> UUID:
    """Read a UUID as it is usually written."""
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise ValueError("a UUID is written like 0f6b2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10")
    return UUID(text)


def memory_size(text: str) -> int:
    """Read ``-m`` into bytes: a number and one of k, m, g (KiB, MiB, GiB; ``MB`` and ``MiB`` too), or a number of MiB.

    The original's help says that a bare number is in MB; its code meant it, and one with ``b``, to be bytes, and
    refused both. A number below 128 Mi can't be a size in bytes (128 MiB is the least) and one above can't be MiB
    (252 GiB is the most), so both readings are accepted: ``512``, ``512b`` and ``536870912b`` are all 512 MiB.
    """
    match = _MEMORY.match(text)
    if match is None:
        raise ValueError("a memory size is a number and optionally k, m or g, as in 512, 512M or 2G")
    number, unit = c_number(match[1]), match[2].lower()
    if unit:
        return number << _UNITS[unit]
    return number if number >= 128 * MIB else number * MIB


def path(text: str) -> Path:
    """Read a file's path; ``~`` is the home directory."""
    if not text:
        raise ValueError("a path is missing")
    return Path(os.path.expanduser(text))  # pathlib's raises for an unknown ~user


def socket_path(text: str) -> Path:
    """Read a UNIX socket's path."""
    value = path(text)
    why = path_problem(value)
    if why is not None:
        raise ValueError(why)
    return value


def directory(text: str) -> Path | None:
    """Read a directory's path, or ``none``."""
    return None if text == "none" else path(text)


def hugepages(text: str) -> str:
    """Read ``--hugepages``."""
    if text not in ("on", "off", "auto"):
        raise ValueError("expected on, off or auto")
    return text


def on_off(text: str) -> bool:
    """Read ``--dump-guest-core``."""
    if text not in ("on", "off"):
        raise ValueError("expected on or off")
    return text == "on"


def user(text: str) -> User:
    """Read ``--user``: NAME|UID[:GROUP]."""
    return find(text)


def sandbox(text: str) -> str:
    """Read ``--sandbox``."""
    if text not in MODES:
        raise ValueError(f"expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return text


def word(text: str) -> str:
    """Read a name that may not be empty."""
    if not text:
        raise ValueError("a name is missing")
    return text


def bootargs(text: str) -> str:
    """Read ``-B``, the kernel's command line."""
    if len(os.fsencode(text)) > MAX_BOOTARGS:
        raise ValueError(f"the kernel's command line may have at most {MAX_BOOTARGS} bytes")
    return text


def count(text: str) -> int:
    """Read a whole number."""
    return decimal(text, 0, (1 << 31) - 1, "number")


def seconds(text: str) -> float:
    """Read a duration in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_TIMEOUT_S:  # also false for nan
        raise ValueError(f"expected seconds, from 0 to {MAX_TIMEOUT_S:g}")
    return value


def poll_period(text: str) -> int:
    """Read ``--virtio_poll``: nanoseconds."""
    return decimal(text, 1, MAX_POLL_NS, "poll period in ns")


def lapic_ids(text: str) -> tuple[int, ...]:
    """Read ``--cpu_affinity``: decimal host LAPIC ids behind commas."""
    ids = tuple(decimal(part, 0, MAX_APIC_ID, "LAPIC id") for part in text.split(","))
    if len(set(ids)) != len(ids):
        raise ValueError("a LAPIC id is given twice")
    return ids


def names(text: str) -> tuple[str, ...]:
    """Read names behind commas."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise ValueError("expected names with commas between them")
    return found


def pci_slot(text: str) -> DeviceSpec:
    """Read ``-s BDF,DEVICE[,b][,OPTIONS]``: all behind the device's name, commas included, belongs to the device.

    There a comma of a value is written twice.
    """
    place, comma, rest = text.partition(",")
    if not comma:
        raise ValueError("expected SLOT,DEVICE[,OPTIONS], as in 3,virtio-blk,/disk.img; '-s help' lists the devices")
    where = parse_bdf(place)
    kind, _, config = rest.partition(",")
    device_name(kind)
    bootable = split_raw(config)[0] == "b" and config != "b"  # "b,,x" is the value "b,x"
    return DeviceSpec(
        bdf=where, kind=kind, text=config[2:] if bootable else config, bootable=bootable, origin=f"-s {text}"
    )


def device_name(text: str) -> str:
    """Read the name of a kind of device; whether there is one is found out later."""
    if not _KIND.match(text):
        raise ValueError(f"{text!r} is not the name of a device; '-s help' lists them")
    return text


def lpc_uart(text: str) -> UartSpec:
    """Read ``-l comN,BACKEND[,wait]`` or ``-l com5,BACKEND[,IOBASE,IRQ][,wait]``."""
    name, _, rest = text.partition(",")
    number = com_port(name)
    wait = rest.endswith(",wait")
    rest = rest.removesuffix(",wait")
    if number < 5:  # the rest of the string, commas included, is the backend
        return UartSpec(number=number, backend=uart_backend(rest), wait=wait)
    parts = split_options(rest)
    if len(parts) not in (1, 3):
        raise ValueError("expected com5,BACKEND or com5,BACKEND,IOBASE,IRQ, perhaps with ,wait behind it")
    backend = uart_backend(parts[0])
    io_base, irq = (c_number(part) for part in parts[1:]) if len(parts) == 3 else (0, 0)
    return uart_at(number, backend, io_base, irq, wait=wait)


def uart_at(number: int, backend: str, io_base: int, irq: int, *, wait: bool = False) -> UartSpec:
    """Make a COM port of its own address; a 0 in either number leaves both as they are, as in the original."""
    if not io_base or not irq:
        return UartSpec(number=number, backend=backend, wait=wait)
    if io_base > 0xFFF8 or irq > 23:
        raise ValueError("a COM port has 8 ports from IOBASE on, at most 0xfff8, and an IRQ from 1 to 23")
    return UartSpec(number=number, backend=backend, io_base=io_base, irq=irq, wait=wait)


def com_port(name: str) -> int:
    """Read ``com1`` to ``com5``, in any case of letters."""
    match = re.fullmatch("com([1-5])", name, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{name!r} is not a serial port; expected com1 to com5, then a backend, as in com1,stdio")
    return int(match[1])


def uart_backend(text: str) -> str:
    """Read what is behind a serial port: ``stdio``, ``tcp:PORT``, a tty's path, or nothing."""
    if text.startswith("tcp:"):
        decimal(text[4:], 1, 65535, "TCP port")
    elif text and text != "stdio" and not text.startswith(("/", "./", "../")):
        raise ValueError(f"{text!r} is no serial backend; expected stdio, tcp:PORT or the path of a tty")
    return text


@frozen(kw_only=True)
class LogSettings:
    """``--logger_setting``: the level of each destination, 1 error … 5 debug; None is off."""

    console: int = 3
    kmsg: int | None = None
    disk: int | None = None


def logger_setting(text: str) -> LogSettings:
    """Read ``NAME,level=N`` joined by ``;``, NAME being console, kmsg or disk.

    The original does not check levels, and its own guide has a ``kmsg,level=6``: that is everything, too.
    """
    levels: dict[str, int] = {}
    for entry in filter(None, text.split(";")):
        name, _, level = entry.partition(",")
        if name not in attrs.fields_dict(LogSettings):
            raise ValueError(f"{name!r} is not a logger; they are console, kmsg and disk")
        if not level.startswith("level="):
            raise ValueError(f"{entry!r}: expected {name},level=N")
        number = decimal(level.removeprefix("level="), 1, MAX_LOG_LEVEL, f"{name}'s level")
        levels[name] = min(number, DEBUG_LEVEL)
    if not levels:
        raise ValueError("expected NAME,level=N with ';' between them, as in 'console,level=4;disk,level=5'")
    return LogSettings(**levels)
