"""Paths of UNIX sockets, as far as their names tell; nothing here needs a socket."""

import os
from pathlib import Path

MAX_PATH = 107  # bytes, sun_path of linux/un.h without its NUL


def path_problem(path: Path) -> str | None:
    """What is wrong with *path* as a socket's, as far as looking at its name tells."""
    return f"a socket's path has at most {MAX_PATH} bytes" if len(os.fsencode(path)) > MAX_PATH else None
