"""What clients that keep no rule need, whatever the protocol: the process they are of, and the judgement of it.

While each of them is connected and has done its harm, a driver of another device of that process has to get an answer
within ten seconds. Some say nothing at all and stay while others come.
"""

import argparse
import collections
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import attrs

WITNESS = "virtio-rnd"
PATIENCE_S = 10.0
WARM = 50  # clients before the process is measured: what is made once is there by then
GROWTH_MIB, MORE_DESCRIPTORS = 8, 4
REST_S = 0.5
END_S = 2.0
START_S = 120.0
SILENT, MOST_SILENT = 0.05, 3

Kinds = collections.Counter[str]  # of harm, and how often each was done
Step = tuple[bytes, list[int]]  # a message, and the descriptors beside it


BENT = ("left out", "repeated", "a byte", "other descriptors", "made up", "size of a message")
WRONG_ORDER = "wrong order"


class Broken(Exception):
    """What must not have happened, in words."""


class Hostile(Protocol):
    """One client."""

    def attack(self, path: Path, meanwhile: Callable[[], None]) -> None:
        """Connect, do harm, call *meanwhile*, leave. Raises Broken when the server keeps it waiting."""


class Witness(Protocol):
    """A client of the other device, that keeps the rules."""

    def entropy(self) -> float:
        """Seconds until its request was answered. Raises Broken."""

    def close(self) -> None:
        """Leave."""


@attrs.frozen
class Bender:
    """What the dice do to a conversation, counted in *kinds*. *made_up* is a message that was not in it, *resized* what
    is said instead of one with a size of which the protocol knows nothing; *fds* may be beside any.
    """

    dice: random.Random
    kinds: Kinds
    fds: Sequence[int]
    made_up: Callable[[], bytes]
    resized: Callable[[bytes], bytes]

    def bent(self, steps: list[Step], harms: Sequence[float]) -> Iterator[Step]:
        """*steps*, of which so many are done otherwise as one of *harms* says."""
        dice = self.dice
        if dice.random() < 0.3:
            self.kinds[WRONG_ORDER] += 1
            at = dice.randrange(len(steps) - 1)
            steps[at], steps[at + 1] = steps[at + 1], steps[at]
        harm = dice.choice(harms)
        for step in steps:
            if dice.random() >= harm:
                yield step
            else:
                kind = dice.choice(BENT)
                self.kinds[kind] += 1
                yield from self._instead(kind, *step)

    def _instead(self, kind: str, data: bytes, beside: list[int]) -> list[Step]:
        dice = self.dice
        if kind == "repeated":
            return [(data, beside)] * dice.randint(2, 5)
        if kind == "a byte":
            changed = bytearray(data)
            changed[dice.randrange(len(changed))] = dice.randrange(256)
            return [(bytes(changed), beside)]
        if kind == "other descriptors":
            return [(data, [dice.choice(self.fds) for _ in range(dice.randint(0, 8))])]
        if kind == "made up":
            return [(self.made_up(), beside[:1])]
        return [] if kind == "left out" else [(self.resized(data), beside)]


@attrs.frozen(kw_only=True)
class Attack:
    """A protocol's clients. *look* has a good client served by the device of that name at a socket, or raises Broken;
    it does so after each so many (*each*).
    """

    protocol: str
    hostile: Callable[[random.Random, Kinds], Hostile]
    witness: Callable[[Path], Witness]
    look: Callable[[Path, str], None]
    each: int


def connected(path: Path) -> socket.socket:
    """A connection; those who came before may have to be accepted first. Raises Broken."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            peer.connect(str(path))
            return peer
        except BlockingIOError:
            if time.monotonic() > deadline:
                peer.close()
                raise Broken(f"nobody was accepted for {PATIENCE_S:g} s") from None
            time.sleep(0.001)
        except OSError as e:
            peer.close()
            raise Broken(f"nobody listens: {e}") from e


@attrs.define(eq=False)
class Exporter:
    """The process, with the device to be attacked and the one that is used meanwhile."""

    module: str
    protocol: str
    device: str
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def attacked(self) -> Path:
        """Its socket."""
        return self.folder / "attacked"

    @property
    def used(self) -> Path:
        """The other's."""
        return self.folder / "used"

    def start(self) -> None:
        """Start it, and wait until it listens. Raises Broken."""
        (self.folder / "disk").write_bytes(bytes(1 << 20))
        words = [self.device.format(folder=self.folder), WITNESS]
        sockets = [f"--socket-path={path}" for path in (self.attacked, self.used)]
        argv = [sys.executable, "-m", self.module, self.protocol, *words, *sockets]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self.used.exists():
            self.check_alive()
            if time.monotonic() > deadline:
                raise Broken("it did not start")
            time.sleep(0.02)

    def check_alive(self) -> None:
        """Raises Broken."""
        if ended := self.ended(0):
            raise Broken(ended)

    def ended(self, within: float) -> str:
        """How it ended, if it does so within those seconds; else nothing."""
        assert self.process is not None
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            return ""
        said = (self.folder / "log").read_text(errors="replace")[-1500:]
        return f"the process ended with {status}: {said}"

    def descriptors(self) -> int:
        """How many it has open."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def mebibytes(self) -> float:
        """What it has in memory of its own."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """SIGTERM, which it ends upon with 0. Raises Broken."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Broken("SIGTERM did not end it within 30 s") from None
        if status:
            raise Broken(f"it ended with {status}")


@attrs.define
class Tally:
    """Of one device."""

    clients: int = 0
    answers: int = 0
    slowest: float = 0.0
    kinds: Kinds = attrs.field(factory=collections.Counter)
    before: tuple[int, float] = (0, 0.0)
    after: tuple[int, float] = (0, 0.0)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{self.clients} hostile clients, {self.answers} answers of the other device meanwhile, the slowest in "
            f"{self.slowest:.2f} s; descriptors {self.before[0]} -> {self.after[0]}, {self.before[1]:.0f} -> "
            f"{self.after[1]:.0f} MiB ({kinds})"
        )


def rested(exporter: Exporter) -> int:
    """Descriptors, when all clients that were there are forgotten: as many as before for a while."""
    deadline = time.monotonic() + PATIENCE_S
    count, since = exporter.descriptors(), time.monotonic()
    while time.monotonic() < min(since + REST_S, deadline):
        time.sleep(0.02)
        if exporter.descriptors() != count:
            count, since = exporter.descriptors(), time.monotonic()
    return count


def settled(exporter: Exporter, wanted: int) -> tuple[int, float]:
    """Descriptors and memory, once the last clients are forgotten."""
    deadline = time.monotonic() + PATIENCE_S
    while exporter.descriptors() > wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return exporter.descriptors(), exporter.mebibytes()


def run(attack: Attack, exporter: Exporter, clients: int, seed: int) -> Tally:
    """Attack the first device of *exporter* with *clients*, whose dice are of seeds from *seed* on. Raises Broken."""
    tally = Tally()
    exporter.start()
    try:
        witness = attack.witness(exporter.used)
        try:
            _attack(attack, exporter, witness, tally, range(seed, seed + clients))
        finally:
            witness.close()
        tally.after = settled(exporter, tally.before[0])
        refuse_growth(tally)
        exporter.stop()
    except Broken as e:
        # A dying process closes its sockets before it has ended: whoever was left by it sees that first.
        why = exporter.ended(END_S) or str(e)
        raise Broken(f"client {tally.clients}, seed {seed + tally.clients}: {why}") from e
    finally:
        if exporter.process is not None and exporter.process.poll() is None:
            exporter.process.kill()
            exporter.process.wait()
    return tally


def _attack(attack: Attack, exporter: Exporter, witness: Witness, tally: Tally, seeds: range) -> None:
    silent: collections.deque[socket.socket] = collections.deque()

    def meanwhile() -> None:
        tally.slowest = max(tally.slowest, witness.entropy())
        exporter.check_alive()
        tally.answers += 1

    try:
        for n, seed in enumerate(seeds):
            dice = random.Random(seed)
            if dice.random() < SILENT:
                tally.kinds["silence"] += 1
                silent.append(connected(exporter.attacked))
                meanwhile()
            else:
                attack.hostile(dice, tally.kinds).attack(exporter.attacked, meanwhile)
            if len(silent) > MOST_SILENT:
                silent.popleft().close()
            if n % attack.each == attack.each - 1:
                _look(attack, exporter)
            tally.clients = n + 1
            if n + 1 == min(WARM, len(seeds) // 2):
                while silent:
                    silent.pop().close()
                _look(attack, exporter)  # whoever came before has had its turn
                tally.before = rested(exporter), exporter.mebibytes()
        _look(attack, exporter)
    finally:
        while silent:
            silent.pop().close()


def _look(attack: Attack, exporter: Exporter) -> None:
    attack.look(exporter.attacked, exporter.device)
    exporter.check_alive()


def refuse_growth(tally: Tally) -> None:
    """Raise Broken where the exporter has become larger."""
    if tally.after[0] > tally.before[0] + MORE_DESCRIPTORS:
        raise Broken(f"{tally.before[0]} descriptors have become {tally.after[0]}")
    if tally.after[1] > tally.before[1] + GROWTH_MIB:
        raise Broken(f"{tally.before[1]:.0f} MiB have become {tally.after[1]:.0f}")


def attack_all(arguments: Sequence[str], attack: Attack, *, text: str, devices: Sequence[str]) -> int:
    """Attack each device, and say what came of it. 0 when nothing broke."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument(
        "devices", nargs="*", metavar="DEVICE", help="as behind acrn-dm -s SLOT,; {folder} is its folder"
    )
    parser.add_argument("--clients", type=int, default=10_000, help="of each device (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", default="acrn_dm.export.cli", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    status = 0
    for device in options.devices or devices:
        with tempfile.TemporaryDirectory() as folder:
            exporter = Exporter(options.module, attack.protocol, device, Path(folder))
            try:
                said = str(run(attack, exporter, options.clients, options.seed))
            except Broken as e:
                said, status = str(e), 1
            print(f"{device}: {said}", flush=True)
    return status
