"""Numbers and structures of ACRN's kernel module as its stand-in knows them; see ``fake_hsm``."""

import struct
from typing import Any

import attrs

NUMBERS = {
    0xC030A210: "CREATE_VM",
    0xA211: "DESTROY_VM",
    0xA212: "START_VM",
    0xA213: "PAUSE_VM",
    0xA215: "RESET_VM",
    0x4128A216: "SET_VCPU_REGS",
    0x4010A223: "INJECT_MSI",
    0x4008A224: "VM_INTR_MONITOR",
    0x4008A225: "SET_IRQLINE",
    0x4008A231: "NOTIFY_REQUEST_FINISH",
    0xA232: "CREATE_IOREQ_CLIENT",
    0xA233: "ATTACH_IOREQ_CLIENT",
    0xA234: "DESTROY_IOREQ_CLIENT",
    0xA235: "CLEAR_VM_IOREQ",
    0x4020A241: "SET_MEMSEG",
    0xC008A260: "PM_GET_CPU_STATE",
    0x4020A270: "IOEVENTFD",
    0x4018A271: "IRQFD",
    0x4008A290: "SETUP_ASYNCIO",
    0x4008A2A0: "SETUP_VM_EVENT_RING",
    0x4004A2A1: "SETUP_VM_EVENT_FD",
}
CREATION = struct.Struct("<HHHH16sQQQ")
VCPU_REGS = struct.Struct("<H6x16Q HQ6x HQ6x 7Q 4Q II 3I 8H 4x")
MEMMAP = struct.Struct("<IIQQQ")
MSI = struct.Struct("<QQ")
NOTIFY = struct.Struct("<HHI")
IOEVENTFD = struct.Struct("<iIQIIQ")
IRQFD = struct.Struct("<iIQQ")
CODES = {
    "SET_MEMSEG": MEMMAP,
    "INJECT_MSI": MSI,
    "NOTIFY_REQUEST_FINISH": NOTIFY,
    "IOEVENTFD": IOEVENTFD,
    "IRQFD": IRQFD,
    "SET_VCPU_REGS": VCPU_REGS,
    "CREATE_VM": CREATION,
}


@attrs.frozen
class Call:
    """One ioctl as it was asked for, decoded."""

    name: str
    argument: Any = None


def decode(name: str, argument: int | bytearray) -> Any:
    """What a caller passed: the fields of a structure, both halves of an address, or nothing."""
    if isinstance(argument, int):
        if name == "SET_IRQLINE":
            return argument & 0xFFFF_FFFF, argument >> 32
        return None
    if name == "PM_GET_CPU_STATE":
        return struct.unpack_from("<Q", argument)[0]
    code = CODES[name]
    assert len(argument) == code.size, name  # the size is part of the request's number
    return code.unpack(argument)
