"""Progress and checks of one demonstration."""

import json
import time

import attrs

CHECKS = (
    *("kernel", "pci", "drivers", "rings", "rng", "disk-read", "disk-write", "ping", "console", "kernel-log"),
    *("exit", "disk-bytes", "no-new-warnings"),
)


@attrs.frozen(kw_only=True)
class Check:
    """One of them, judged."""

    ok: bool
    detail: str


class Log:
    """Prints progress with the seconds since the start, and gathers the checks."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.checks: dict[str, Check] = {}
        self._partial = b""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        print(f"[{self.seconds:6.1f} s] {text}", flush=True)

    def check(self, name: str, ok: bool, detail: str) -> None:
        self.checks[name] = Check(ok=ok, detail=detail)
        self.note(f"{'ok' if ok else 'FAILED':6} {name}: {detail}")

    def failures(self) -> dict[str, str]:
        """What failed or was not reached, with the reason."""
        for name in CHECKS:
            self.checks.setdefault(name, Check(ok=False, detail="not reached"))
        return {name: check.detail for name, check in self.checks.items() if not check.ok}

    def events(self, data: bytes) -> None:
        """Take some of drive.py's output, cut anywhere."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                self.note(line.decode(errors="replace"))  # a traceback
                continue
            if "check" in event:
                self.check(event["check"], event["ok"], event["detail"])
            else:
                self.note(event["note"])


def table(checks: dict[str, Check]) -> str:
    """A line for each check."""
    width = max(map(len, checks))
    return "\n".join(f"  {name:{width}}  {'ok' if c.ok else 'FAILED':6}  {c.detail}" for name, c in checks.items())
