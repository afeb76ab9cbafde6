"""A guest of QEMU's that moves from one QEMU to another, each with processes of ours for its card and its disk."""

import contextlib
import hashlib
import mmap
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.testing.guest.host import Host, HostProcess
from acrn_dm.testing.guest.inner.dialogue import Dialogue
from acrn_dm.testing.guest.inner.initramfs import SHELL, guest_init, guest_initramfs
from acrn_dm.testing.guest.inner.shell import BOOT_LIMIT
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.process import Result
from acrn_dm.testing.guest.served.machine import command
from tests.backends.user.user_rig import Daemon, listens
from tests.lab.peers.migration.network import GUEST_IP, STATION_IP, STATION_MAC, Station
from tests.lab.peers.qmp import Qmp
from tests.patience import comes_true

PAGE = 4096
PATIENCE_S = 120.0
DOWNTIME_MS = 200
BANDWIDTH = 64 << 20  # so that there are rounds of pages that were written meanwhile
READERS = "for n in 1 2; do (while :; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2> /dev/null; done) & done"


@attrs.define(eq=False)
class Port:
    """What a guest says and is told over a console: that of the QEMU where it is, behind what earlier ones had."""

    process: HostProcess
    _before: str = attrs.field(default="", init=False)

    def move(self, process: HostProcess) -> None:
        """The guest is there from now on."""
        self._before += self.process.stdout
        self.process = process

    @property
    def stdout(self) -> str:
        return self._before + self.process.stdout

    @property
    def stderr(self) -> str:
        return self.process.stderr

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    def write(self, data: bytes) -> None:
        self.process.write(data)

    def signal(self, number: int) -> None:
        self.process.signal(number)

    def wait(self, timeout: float = 60.0) -> Result:
        return self.process.wait(timeout)


@attrs.define(eq=False)
class Place:
    """Where a guest may be: the sockets of its devices, and the QEMU that has it, if one has."""

    folder: Path
    daemon: Daemon
    devices: Sequence[str]  # QEMU's words
    qemu: HostProcess | None = None
    monitor: Qmp | None = None

    def start(self, words: Sequence[str]) -> None:
        """Start QEMU with *words* beside those of its devices."""
        path = self.folder / "monitor"
        path.unlink(missing_ok=True)
        self.qemu = qemu = Host().spawn([*words, *self.devices, "-qmp", f"unix:{path},server=on,wait=off"])
        assert comes_true(lambda: listens(path) or qemu.returncode is not None, PATIENCE_S)
        assert qemu.returncode is None, qemu.stderr
        self.monitor = Qmp(path)

    def asked(self, word: str) -> str:
        """The status that the query *word* tells."""
        assert self.monitor is not None
        told = self.monitor.run(word)
        assert told.get("status") != "failed", told
        return str(told.get("status"))

    def end(self) -> None:
        """End QEMU at once. Idempotent."""
        if self.monitor is not None:
            self.monitor.close()
            self.monitor = None
        if self.qemu is not None:
            self.qemu.signal(signal.SIGKILL)
            self.qemu.wait(20)
            self.qemu = None


@attrs.frozen
class Move:
    """What happened during one."""

    different: Sequence[int]  # numbers of pages that are not as they were
    rounds: int  # of pages that were written since they were sent
    echoes: int  # of the guest's
    took_ms: int
    stood_still_ms: int


@attrs.define(eq=False)
class Scene:
    """A guest that is busy at the place *here*, and another place for it."""

    words: Sequence[str]
    image: Path
    here: Place
    there: Place
    station: Station
    port: Port
    dialogue: Dialogue

    def run(self, line: str) -> str:
        return self.dialogue.run(line, PATIENCE_S)

    def move(self) -> Move:
        """Move the guest; its memory is compared when it stands still at both places."""
        path = self.there.folder / "move"
        path.unlink(missing_ok=True)
        self.there.start([*self.words, "-S", "-incoming", f"unix:{path}"])
        source, target = self.here.monitor, self.there.monitor
        assert source is not None
        assert target is not None
        assert comes_true(lambda: listens(path), PATIENCE_S)
        source.run("migrate-set-parameters", **{"downtime-limit": DOWNTIME_MS, "max-bandwidth": BANDWIDTH})
        echoes = self.station.echoes
        source.run("migrate", uri=f"unix:{path}")
        assert comes_true(lambda: self.here.asked("query-migrate") == "completed", PATIENCE_S)
        assert comes_true(lambda: self.there.asked("query-status") == "paused", PATIENCE_S)
        told, echoes = source.run("query-migrate"), self.station.echoes - echoes
        different = differences(source.memory, target.memory)
        target.run("cont")
        assert self.there.qemu is not None
        self.port.move(self.there.qemu)
        self.here.end()
        self.here, self.there = self.there, self.here
        return Move(different, told["ram"]["dirty-sync-count"], echoes, told["total-time"], told["downtime"])

    def echoes(self, count: int) -> bool:
        """Whether *count* more come from the guest."""
        wanted = self.station.echoes + count
        return comes_true(lambda: self.station.echoes >= wanted, PATIENCE_S)

    def reads(self) -> bool:
        """Whether the guest reads from the disk what is in its file."""
        digest = self.run("dd if=/dev/vda bs=1M iflag=direct 2> /dev/null | sha256sum").split()[0]
        return digest == hashlib.sha256(self.image.read_bytes()).hexdigest()

    def writes(self) -> bool:
        """Whether what the guest writes to the disk arrives."""
        self.run("dd if=/dev/urandom of=/tmp/noise bs=64k count=1 2> /dev/null")
        self.run("dd if=/tmp/noise of=/dev/vda bs=64k oflag=direct conv=fsync,notrunc 2> /dev/null")
        wanted = self.run("sha256sum < /tmp/noise").split()[0]
        return wanted == hashlib.sha256(self.image.read_bytes()[: 64 << 10]).hexdigest()


def differences(first: Path, second: Path) -> list[int]:
    """The numbers of pages that two files do not have in common."""
    with (
        first.open("rb") as one,
        second.open("rb") as other,
        mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ) as a,
        mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ) as b,
    ):
        assert len(a) == len(b) > 0
        return [at // PAGE for at in range(0, len(a), PAGE) if a[at : at + PAGE] != b[at : at + PAGE]]


@contextlib.contextmanager
def busy_guest(
    qemu: Sequence[str], kernel: Kernel, image: Path, places: Sequence[Place], station: Station
) -> Iterator[Scene]:
    """A guest at the first of *places*, whose disk is read and whose card is asked for echoes without end."""
    initramfs = guest_initramfs(kernel, init=guest_init(SHELL))
    words = command(kernel.quick_image, initramfs, places[0].folder / "serial", qemu=qemu)
    try:
        places[0].start(words)
        assert places[0].qemu is not None
        port = Port(places[0].qemu)
        dialogue = Dialogue(port, lambda: f"\nQEMU said last: {port.stderr[-2000:]}")
        dialogue.wait_up(BOOT_LIMIT)
        scene = Scene(words, image, places[0], places[1], station, port, dialogue)
        scene.run(f"ip link set eth0 up && ip addr add {GUEST_IP}/24 dev eth0 && arp -s {STATION_IP} {STATION_MAC}")
        assert scene.echoes(10)
        assert scene.reads()
        scene.run(f"{READERS} > /dev/null 2>&1")
        yield scene
    finally:
        for place in places:
            place.end()
