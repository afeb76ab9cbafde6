"""``python -m tools.disk_kill [--kills 1000] [--seed N] [MODE ...]``: SIGKILL while a disk is written and flushed.

A process serves a virtio-blk disk to a driver in the simulated machine, which writes blocks at random on two queues,
several at a time, and flushes now and then. What it submits and what the device answers it notes in shared memory. At a
random moment the process is killed; then the image must hold every write that was acknowledged, and nothing that was
never written. Each mode is a cache mode of the option, or one that the driver chose. Python executes the requests, but
natively in the modes that name an engine.

What this shows, and what not: SIGKILL ends the process only; what it has given to the kernel survives. So an
acknowledged write must be there flushed or not, and a flush that does nothing would go unnoticed. Modes that end in
``-power`` are about that: there the process keeps what it writes to itself until fdatasync, or a write that asks for
the medium (RWF_DSYNC), lets it go, so that the kill loses it as a power failure does. In those, what a completed flush
followed must be there (or, in write-through mode, each acknowledged write). The kernel, and a disk that lies about its
cache, are not put to the test.
"""

import argparse
import contextlib
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.devices.virtio_blk.image import backend, trust
from acrn_dm.testing import SimMachine, VirtioDriver

SECTOR, BLOCK, BLOCKS = 512, 4096, 64
DEPTH, MAX_ANSWERS = 12, 120  # requests under way; answers after which the kill comes at the latest
QUEUES = 2
OUT, FLUSH, OK = 1, 4, 0
WRITEBACK_AT = 32  # in the configuration space
HEADER = struct.Struct("<IIQ")
STAMP = struct.Struct("<QII")  # seed, block, how often it has been written: at the beginning of each sector
PATIENCE_S = 60.0

# mode -> options, what the driver writes to ``writeback``, whether a kill loses what was not flushed
MODES: dict[str, tuple[str, int | None, bool]] = {
    "writethru": ("writethru", None, False),
    "writeback": ("writeback", None, False),
    "writethru-io_uring": ("writethru,aio=io_uring", None, False),
    "writeback-io_uring": ("writeback,aio=io_uring", None, False),
    "writethru-threads": ("writethru,aio=threads", None, False),
    "writeback-threads": ("writeback,aio=threads", None, False),
    "writethru-nocache": ("writethru,nocache", None, False),
    "writeback-nocache": ("writeback,nocache", None, False),
    "chosen-writethru": ("writeback", 0, False),
    "chosen-writeback": ("writethru", 1, False),
    "writethru-power": ("writethru", None, True),
    "writeback-power": ("writeback", None, True),
    "chosen-writethru-power": ("writeback", 0, True),
}


class Ledger:
    """What is known of each block, in memory that survives the process: counts of writes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4 * (3 * BLOCKS + 3))
        words = memoryview(self._memory).cast("I")
        self.submitted, self.acknowledged, self.stable = (words[n * BLOCKS : (n + 1) * BLOCKS] for n in range(3))
        self.totals = words[3 * BLOCKS :]  # answers, flushes among them, answers that were no OK

    def clear(self) -> None:
        """A new process begins."""
        self._memory[:] = bytes(len(self._memory))


class PowerCut:
    """``os`` for the image, but what is written stays in this process until it is asked to be on the medium."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], bytes] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwritev(self, fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        """As the system call."""
        data = b"".join(views)
        with self._lock:
            if flags & os.RWF_DSYNC:
                os.pwrite(fd, data, offset)
            for at in range(0, len(data), SECTOR):
                self._kept.pop((fd, offset + at), None)
                if not flags & os.RWF_DSYNC:
                    self._kept[fd, offset + at] = data[at : at + SECTOR]
        return len(data)

    def fdatasync(self, fd: int) -> None:
        """As the system call."""
        with self._lock:
            for (its, offset), data in list(self._kept.items()):
                if its == fd:
                    os.pwrite(fd, data, offset)
                    del self._kept[its, offset]


@attrs.define(eq=False)
class Guest:
    """The driver: submits, and notes what comes back. *writethrough*: an answer alone promises durability."""

    driver: VirtioDriver
    ledger: Ledger
    dice: random.Random
    seed: int
    writethrough: bool
    _writes: dict[tuple[int, int], tuple[int, int]] = attrs.field(factory=dict)  # queue, token -> block, count
    _flushes: dict[tuple[int, int], list[int]] = attrs.field(factory=dict)  # -> what was acknowledged before

    def run(self) -> None:
        """For ever."""
        machine = self.driver.machine
        while True:
            while len(self._writes) + len(self._flushes) < DEPTH:
                self._submit(self.dice.randrange(QUEUES))
            for loop in tuple(machine.io_loops.values()):
                loop.step(0.01)
            for queue in range(QUEUES):
                for done in self.driver.queue(queue).completed():
                    self._answered((queue, done.token), done.data[-1])

    def _submit(self, queue: int) -> None:
        q = self.driver.queue(queue)
        busy = {block for block, _ in self._writes.values()}
        if self.dice.random() < 0.1:
            before = list(self.ledger.acknowledged)
            self._flushes[queue, q.send([HEADER.pack(FLUSH, 0, 0)], [1])] = before
        else:
            block = self.dice.choice([b for b in range(BLOCKS) if b not in busy])
            self.ledger.submitted[block] = count = self.ledger.submitted[block] + 1
            data = STAMP.pack(self.seed, block, count).ljust(SECTOR, b"\xa5") * (BLOCK // SECTOR)
            token = q.send([HEADER.pack(OUT, 0, block * BLOCK // SECTOR), data], [1])
            self._writes[queue, token] = block, count
        q.kick()

    def _answered(self, request: tuple[int, int], status: int) -> None:
        ledger = self.ledger
        if request in self._flushes:
            for block, count in enumerate(self._flushes.pop(request)):
                if status == OK:
                    ledger.stable[block] = max(ledger.stable[block], count)
            ledger.totals[1] += 1
        else:
            block, count = self._writes.pop(request)
            if status == OK:
                ledger.acknowledged[block] = count
                if self.writethrough:
                    ledger.stable[block] = count
        ledger.totals[2] += status != OK
        ledger.totals[0] += 1  # last: the kill waits for it


def serve(path: Path, mode: str, seed: int, ledger: Ledger) -> None:
    """What the process does that is killed."""
    options, chosen, power = MODES[mode]
    if power:
        cut = PowerCut()
        for module in (backend, trust):
            vars(module)["os"] = cut
    with SimMachine(vcpus=QUEUES) as machine:
        machine.add(acrn_dm_device_types()[0], f"mq={QUEUES},{path},{options}", slot=3)
        driver = machine.driver(3)
        driver.start()
        if chosen is not None:
            driver.registers.write_config(WRITEBACK_AT, 1, chosen)
        writethrough = not (chosen if chosen is not None else options.startswith("writeback"))
        Guest(driver, ledger, random.Random(seed), seed, writethrough).run()


def kill_once(path: Path, mode: str, seed: int, ledger: Ledger) -> None:
    """Start the process, and kill it when it has had some answers, or a moment later."""
    ledger.clear()
    path.write_bytes(bytes(BLOCK * BLOCKS))
    dice = random.Random(~seed)
    answers, moment = dice.randrange(1, MAX_ANSWERS), dice.choice((0.0, dice.random() * 0.005))
    child = os.fork()
    if child == 0:
        try:
            serve(path, mode, seed, ledger)
        finally:
            os._exit(1)
    deadline = time.monotonic() + PATIENCE_S
    while ledger.totals[0] < answers and time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise RuntimeError(f"mode {mode}, seed {seed}: the process ended by itself")
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if ledger.totals[0] < answers:
        raise RuntimeError(f"mode {mode}, seed {seed}: {ledger.totals[0]} answers in {PATIENCE_S:.0f} s")


def losses(path: Path, seed: int, ledger: Ledger, *, power: bool) -> Iterator[str]:
    """What the image should have and has not, in words."""
    data = path.read_bytes()
    promised = ledger.stable if power else ledger.acknowledged
    for at in range(0, len(data), SECTOR):
        block = at // BLOCK
        its_seed, its_block, count = STAMP.unpack_from(data, at)
        where = f"sector {at // SECTOR}: "
        if (its_seed, its_block, count) != (0, 0, 0) and (its_seed, its_block) != (seed, block):
            yield where + f"write {count} of block {its_block}, seed {its_seed}, lies here"
        elif count > ledger.submitted[block]:
            yield where + f"write {count} was never sent, the last was {ledger.submitted[block]}"
        elif count < promised[block]:
            yield where + f"write {promised[block]} was promised to be there, but it has write {count}"
    if ledger.totals[2]:
        yield f"{ledger.totals[2]} requests failed"


@attrs.define
class Tally:
    """Of one mode."""

    kills: int = 0
    answers: int = 0
    flushes: int = 0
    lost: list[str] = attrs.field(factory=list)


def run(directory: Path, mode: str, kills: int, seed: int, progress: int = 0) -> Tally:
    """Kill *kills* processes in *mode*, with seeds from *seed* on; with *progress* say so each time that many are dead.
    The first kill that loses something is the last.
    """
    tally, ledger, path = Tally(), Ledger(), directory / "disk.img"
    for n in range(seed, seed + kills):
        kill_once(path, mode, n, ledger)
        tally.kills += 1
        tally.answers += ledger.totals[0]
        tally.flushes += ledger.totals[1]
        tally.lost = list(losses(path, n, ledger, power=MODES[mode][2]))
        if tally.lost:
            tally.lost.insert(0, f"with --seed {n}")
            break
        if progress and tally.kills % progress == 0:
            print(f"{mode}: {tally.kills} of {kills}", file=sys.stderr, flush=True)
    return tally


def main() -> int:
    """Run every mode; print a line each. Exit status 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="in each mode (default: 1000)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the first kill; each further one has the next (default: 1)"
    )
    parser.add_argument("--directory", type=Path, help="where the image is to lie (default: a temporary one)")
    parser.add_argument("modes", nargs="*", metavar="MODE", help=f"of {', '.join(MODES)}")
    arguments = parser.parse_args()
    for mode in arguments.modes:
        if mode not in MODES:
            parser.error(f"no mode {mode!r}; there are {', '.join(MODES)}")
    failed = 0
    with contextlib.ExitStack() as stack:
        directory = arguments.directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for mode in arguments.modes or MODES:
            tally = run(directory, mode, arguments.kills, arguments.seed, progress=max(1, arguments.kills // 10))
            verdict = f"LOST: {'; '.join(tally.lost[:5])}" if tally.lost else "nothing acknowledged was lost"
            print(
                f"{mode}: {tally.kills} kills, {tally.answers} answers, {tally.flushes} flushes: {verdict}", flush=True
            )
            failed |= bool(tally.lost)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
