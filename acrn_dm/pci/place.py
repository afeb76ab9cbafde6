"""A function's place on the PCI bus, as people write it: on the command line, in TOML, to a running machine."""

import re

from acrn_dm.base.decimal_text import decimal
from acrn_dm.contract.types import Bdf

_LIMITS = (("bus", 255), ("slot", 31), ("function", 7))


def parse_bdf(text: str, separators: str = ":/.") -> Bdf:
    """Read ``slot``, ``slot:func`` or ``bus:slot:func``, with any of *separators*. Raises ValueError."""
    parts = re.split(f"[{re.escape(separators)}]", text)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"{text!r} is not a place; write slot, slot:func or bus:slot:func")
    fields = {1: ["0", *parts, "0"], 2: ["0", *parts], 3: parts}[len(parts)]
    bus, slot, func = (decimal(t, 0, top, what) for t, (what, top) in zip(fields, _LIMITS, strict=True))
    return Bdf(bus=bus, slot=slot, func=func)
