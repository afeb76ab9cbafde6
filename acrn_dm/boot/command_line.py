"""The kernel command line (``-B``) as bytes."""

import os

from acrn_dm.base.errors import ConfigError

MAX_LENGTH = 2047  # bytes without the NUL: COMMAND_LINE_SIZE of Linux on x86, and what the original's parser takes


def encode(bootargs: str, limit: int = MAX_LENGTH) -> bytes:
    """Return *bootargs* with the NUL behind it. Raises ConfigError when it is longer than *limit* bytes."""
    line = os.fsencode(bootargs)
    limit = min(limit, MAX_LENGTH)
    if len(line) > limit:
        raise ConfigError(f"a command line of {len(line)} bytes; this guest takes at most {limit}", option="-B")
    if b"\0" in line:
        raise ConfigError("a command line can't contain NUL", option="-B")
    return line + b"\0"
