"""Options of the original that concern the platform: their grammar. Some are provided by no hypervisor here, and only
checked.

Parsers raise ValueError like those of ``values``.
"""

import re
from pathlib import Path

from acrn_dm.base.address_map import KIB, MIB
from acrn_dm.base.decimal_text import decimal
from acrn_dm.cli.values import path
from acrn_dm.contract.config import Firmware
from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from acrn_dm.contract.option_text import split_options

U32 = (1 << 32) - 1
MAX_SSRAM = 8 * MIB
PAGE = 4 * KIB

_SSRAM = r"([lL][23]),vcpu=(all|ALL|[0-9]+(?:,[0-9]+)*),size=([0-9]{1,9})([kKmM])\Z"
_HID = r"[A-Za-z0-9]{7,8}(?:,[0-9]{1,3})?\Z"
_HEX = r"(?:0[xX])?[0-9a-fA-F]{1,16}\Z"


def ovmf(text: str) -> Firmware:
    """Read ``[w,]FILE`` or ``[w,]code=FILE,vars=FILE``."""
    image: Path | None = None
    split: dict[str, Path] = {}
    writeback = False
    for token in split_options(text):
        key, eq, value = token.partition("=")
        if token == "w":
            writeback = True
        elif eq and key in ("code", "vars"):
            split[key] = path(value)
        elif image is None:
            image = path(token)
        else:
            raise ValueError("two images; expected [w,]FILE or [w,]code=FILE,vars=FILE")
    if (image is None) == (not split) or len(split) == 1:
        raise ValueError("expected either one image, [w,]FILE, or both parts, [w,]code=FILE,vars=FILE")
    return Firmware(image=image, code=split.get("code"), variables=split.get("vars"), writeback=writeback)


def ssram(text: str) -> str:
    """Read ``Ln,vcpu=<ids|all>,size=<n>K|M`` joined by ``;``."""
    regions = [region for region in text.split(";") if region]
    for region in regions:
        match = re.match(_SSRAM, region)
        if match is None:
            raise ValueError(f"{region!r}: expected Ln,vcpu=IDS|all,size=NK|M, as in L2,vcpu=0,1,size=4K")
        size = int(match[3]) << (10 if match[4] in "kK" else 20)
        if not 0 < size <= MAX_SSRAM or size % PAGE:
            raise ValueError(f"{region!r}: the size must be a multiple of 4K, from 4K to 8M")
    if not regions:
        raise ValueError("expected Ln,vcpu=IDS|all,size=NK|M")
    return text


def interrupt_monitor(text: str) -> InterruptMonitor:
    """Read ``THRESHOLD,PERIOD,DELAY,DURATION``: per second, s, ms, ms."""
    parts = text.split(",")
    if len(parts) != 4:
        raise ValueError("expected THRESHOLD,PERIOD,DELAY,DURATION, as in 10000,10,1,100")
    threshold, delay, duration = (decimal(parts[i], 0, U32, "number") for i in (0, 2, 3))
    period = decimal(parts[1], 1, U32, "period")
    return InterruptMonitor(threshold=threshold, period_s=period, delay_ms=delay, duration_ms=duration)


def acpi_device(text: str) -> str:
    """Read ``HID[,UID]``."""
    if not re.match(_HID, text):
        raise ValueError("expected HID[,UID], as in MSFT0101 or INTC1055,1")
    return text


def mmio_device(text: str) -> tuple[int, int]:
    """Read ``BASE,SIZE``, both hexadecimal."""
    parts = text.split(",")
    if len(parts) != 2 or not all(re.match(_HEX, part) for part in parts):
        raise ValueError("expected BASE,SIZE in hex, as in 0xFED40000,0x00005000")
    base, size = (int(part, 16) for part in parts)
    if not size:
        raise ValueError("the size is 0")
    return base, size


def vtpm(text: str) -> Path:
    """Read ``sock_path=PATH``."""
    key, eq, value = text.partition("=")
    if key != "sock_path" or not eq:
        raise ValueError("expected sock_path=PATH, the control socket of swtpm")
    return path(value)


def power_channel(text: str) -> str:
    """Read ``--pm_notify_channel``."""
    if text not in ("ioc", "power_button", "uart", "uart,allow_trigger_s5"):
        raise ValueError("expected ioc, power_button, uart or uart,allow_trigger_s5")
    return text
