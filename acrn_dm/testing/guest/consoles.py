"""Console logs: what each machine of the lab said last, for whoever looks at a failure."""

from pathlib import Path

from acrn_dm.testing.guest.places import consoles

_NOISE = "TCG doesn't support requested feature"  # the CPU model has more than software emulation gives


def console_log(name: str) -> Path:
    """The file for a console's output, emptied. In the guests' home, hence at the same path in the outer VM."""
    consoles().mkdir(parents=True, exist_ok=True)
    path = consoles() / f"{name}.log"
    path.write_bytes(b"")
    return path


def console_tails(prefix: str = "", *, lines: int = 40, since: float = 0.0) -> dict[str, str]:
    """The last lines of each console log written to after ``since`` (a time as in st_mtime), by the console's name."""
    tails = {}
    for path in sorted(consoles().glob(f"{prefix}*.log")):
        if path.stat().st_size and path.stat().st_mtime >= since:
            text = path.read_bytes().decode(errors="replace").replace("\r\n", "\n")
            worth_showing = [line for line in text.splitlines() if _NOISE not in line]
            if worth_showing:
                tails[path.stem] = "\n".join(worth_showing[-lines:])
    return tails


def remove_logs(prefix: str) -> None:
    """Remove the logs of those consoles."""
    for path in consoles().glob(f"{prefix}*.log"):
        path.unlink(missing_ok=True)
