"""The whole test run in parts that share no machine and wait for different things, side by side: ``make test``.

``python -m tools.side_by_side`` runs every part in a process of its own, prints what they print as it comes, line by
line behind the part's name, and ends with one count for all. The exit status is 0 when every part's is.

What runs in the outer VM waits for emulated processors, one or two of them at a time, and has an outer VM for each
part; the rest is done meanwhile, by two processes.
"""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import attrs

LAB = "tests/lab"
MACHINES = (
    f"{LAB}/machines",
    f"{LAB}/guest",
    f"{LAB}/outer",
    f"{LAB}/peers/migration",
    "tests/boot",
)
TWO_PROCESSES = ("-n", "2", "--dist", "loadfile")  # a file's tests have much in common that is made once a process
# Every test is in exactly one of them. Those of the lab are about as long, and each process of the rest, too. The lab's
# look into its folders only (``conftest.LAB``): to find ten thousand others takes a quarter of a minute each time.
PARTS = {
    "machines": (*MACHINES, "-m", "lab"),
    "lab": (LAB, "-m", "lab", *(f"--ignore={folder}" for folder in MACHINES if folder.startswith(LAB))),
    "rest": ("tests", "plugins", "-m", "not lab", *TWO_PROCESSES),
}
COUNT = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


@attrs.define(eq=False)
class Part:
    """One process: its output passed on, its count taken from what it prints last."""

    name: str
    command: Sequence[str]
    count: tuple[int, int, int] | None = None
    status: int | None = None
    _process: subprocess.Popen[str] = attrs.field(init=False)
    _reader: threading.Thread = attrs.field(init=False)

    def start(self) -> None:
        """Run it, and say what it says."""
        environment = {**os.environ, "LAB_PART": self.name, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            self.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._pass_on)
        self._reader.start()

    def wait(self) -> None:
        """Until it has ended and all is said."""
        self.status = self._process.wait()
        self._reader.join()

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                sys.stdout.write(f"{self.name:8} | {line.rstrip()}\n")  # at once: print writes a line's end by itself
                sys.stdout.flush()
                if found := COUNT.match(line.rstrip()):
                    passed, failed, skipped = map(int, found.groups())
                    self.count = (passed, failed, skipped)


def summary(parts: Sequence[Part]) -> str:
    """The count of all; a part that ended badly without a failure of its own, or without a count, is one."""
    passed = sum(part.count[0] for part in parts if part.count)
    skipped = sum(part.count[2] for part in parts if part.count)
    failed = sum(max(part.count[1] if part.count else 1, int(part.status != 0)) for part in parts)
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def run(commands: dict[str, Sequence[str]]) -> int:
    """Run them all; 0 when each ended with 0 and told a count."""
    begun = time.monotonic()
    parts = [Part(name, command) for name, command in commands.items()]
    for part in parts:
        part.start()
    for part in parts:
        while part.status is None:
            with contextlib.suppress(KeyboardInterrupt):  # the parts get the terminal's, too, and end
                part.wait()
    for part in parts:
        print(f"{part.name:8} | exit status {part.status}, {part.count or 'no count'}")
    print(f"{time.monotonic() - begun:.0f} s")
    print(summary(parts))
    return int(any(part.status != 0 or part.count is None for part in parts))


def main(arguments: Sequence[str]) -> int:
    """*arguments* go to every part's pytest."""
    return run({name: [sys.executable, "-m", "pytest", *part, *arguments] for name, part in PARTS.items()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
