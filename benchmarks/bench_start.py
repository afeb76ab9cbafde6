"""The start: exec to the hypervisor's first call and to the first guest instruction, ``--version``, help, and memory.

``python -m benchmarks start``. A machine with four devices (a card on a tap, a disk, a console, entropy) and a guest of
two instructions, on KVM; beside QEMU with the same. What is preloaded into both (``_first_calls.c``) tells the moments;
KVM counts as called when a virtual machine is made. Memory is the proportional set (Pss) without the guest's own, when
the process rests. Byte code is there, as it is for a user from the second start on.
"""

import contextlib
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from benchmarks.native import BUILD, ROOT
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Alternated, Entry, PeerMissing, Skipped, alone, alternate, table

QEMU = "qemu-system-x86_64"
PATIENCE_S = 30.0
REST_S = 0.3  # without a tick of the CPU's
VERSION_MS, MEMORY_MB = 60.0, 32.0
TAP = "acrnbench0"


@attrs.frozen(kw_only=True)
class Start:
    """One start: seconds from exec to both moments, and memory in MB, if asked for."""

    vm: float
    run: float
    memory: float


def guest_image() -> bytes:
    """A multiboot kernel in an ELF file of 32 bits: hlt, again and again."""
    magic, base, entry = 0x1BAD_B002, 0x10_0000, 0x10_000C
    code = struct.pack("<III", magic, 0, -magic & 0xFFFF_FFFF) + b"\xf4\xeb\xfd"
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return header + struct.pack("<IIIIIIII", 1, 84, base, base, len(code), len(code), 7, 4) + code


def environment(**more: str) -> dict[str, str]:
    """Ours, with byte code that is kept."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more


def preload() -> Path:
    """The library that tells of the first calls, compiled when older than its source."""
    source, target = ROOT / "benchmarks" / "_first_calls.c", BUILD / "bench" / "first_calls.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"], check=True)
    return target


def ours(*args: str) -> list[str]:
    """Our command line."""
    return [sys.executable, "-m", "acrn_dm", *args]


def our_machine(folder: Path) -> list[str]:
    """Four devices on KVM."""
    slots = [f"2,virtio-net,tap={TAP}", f"3,virtio-blk,{folder}/disk.img"]
    slots += [f"4,virtio-console,@file:out={folder}/console.log", "5,virtio-rnd"]
    args = [
        "--hypervisor",
        "kvm",
        "--allow-slow-kvm",
        "-m",
        "128M",
        "--hugepages",
        "off",
        "--manager-directory",
        "none",
    ]
    args += [word for slot in ["0,hostbridge", *slots] for word in ("-s", slot)]
    return ours(*args, "-E", f"{folder}/guest.elf", "bench")


def qemus_machine(folder: Path) -> list[str]:
    """The same four devices in QEMU."""
    memory = "memory-backend-memfd,id=memory,size=128M"
    args = ["-nodefaults", "-no-user-config", "-display", "none", "-M", "q35,memory-backend=memory", "-accel", "kvm"]
    args += ["-m", "128M", "-object", memory, "-kernel", f"{folder}/guest.elf"]
    args += ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no", "-device", "virtio-net-pci,netdev=net"]
    args += ["-drive", f"id=disk,if=none,format=raw,file={folder}/disk.img", "-device", "virtio-blk-pci,drive=disk"]
    args += ["-chardev", f"file,id=console,path={folder}/console.log", "-device", "virtio-serial-pci"]
    return [QEMU, *args, "-device", "virtconsole,chardev=console", "-device", "virtio-rng-pci"]


def start(command: Sequence[str], folder: Path, *, memory: bool = False) -> Start:
    """Start *command*, end it, and say what was seen. Raises RuntimeError for one that ends by itself."""
    told = folder / "told"
    told.unlink(missing_ok=True)
    os.mkfifo(told)
    reader = os.open(told, os.O_RDWR | os.O_NONBLOCK)
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment(FIRST_CALLS=str(told), LD_PRELOAD=str(preload())),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        moments = _moments(process, reader)
        used = resting_memory(process.pid) if memory else 0.0
    finally:
        process.kill()
        process.communicate()
        os.close(reader)
    return Start(vm=moments["vm"] - began, run=moments["run"] - began, memory=used)


def _moments(process: "subprocess.Popen[bytes]", reader: int) -> dict[str, float]:
    text, deadline = b"", time.monotonic() + PATIENCE_S
    while b"run" not in text:
        if process.poll() is not None:
            assert process.stderr is not None
            raise RuntimeError(f"{process.args[0]} ended: {process.stderr.read().decode()[-300:]}")  # type: ignore[index]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args[0]} has not run its guest for {PATIENCE_S:g} s")  # type: ignore[index]
        if select.select([reader], [], [], 0.1)[0]:
            text += os.read(reader, 4096)
    return {call: int(ns) / 1e9 for call, ns in (line.split() for line in text.decode().splitlines())}


def resting_memory(pid: int) -> float:
    """MB of the process *pid*, without files that are the guest's memory, when it has rested for ``REST_S``."""
    ticks, since = "", time.monotonic()
    deadline = since + PATIENCE_S
    while time.monotonic() < min(since + REST_S, deadline):
        now = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        if " ".join(now) != ticks:
            ticks, since = " ".join(now), time.monotonic()
        time.sleep(0.02)
    return pss(Path(f"/proc/{pid}/smaps").read_text())


def pss(smaps: str) -> float:
    """MB of all mappings in the text of a smaps file but those of memfds."""
    total, counted = 0, True
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counted = "/memfd:" not in line
        elif counted and line.startswith("Pss:"):
            total += int(line.split()[1])
    return total / 1024


def wall_ms(command: Sequence[str]) -> float:
    """Milliseconds from exec to the end of *command*."""
    began = time.monotonic()
    subprocess.run(command, check=True, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000


@contextlib.contextmanager
def stage() -> Iterator[Path]:
    """A folder with the guest and its files, and a tap. Raises PeerMissing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise PeerMissing("no /dev/kvm that opens")
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        raise PeerMissing("a tap needs root and /dev/net/tun")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as undo:
        folder = Path(name)
        (folder / "guest.elf").write_bytes(guest_image())
        (folder / "disk.img").write_bytes(bytes(1 << 20))
        subprocess.run(["ip", "tuntap", "add", "mode", "tap", "name", TAP], check=True)
        undo.callback(subprocess.run, ["ip", "tuntap", "del", "mode", "tap", "name", TAP], check=True)
        subprocess.run(["ip", "link", "set", TAP, "up"], check=True)
        yield folder


def version() -> str:
    """QEMU's version. Raises PeerMissing."""
    if shutil.which(QEMU) is None:
        raise PeerMissing(f"{QEMU} is not installed (Debian: qemu-system-x86)")
    text = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("version ")[1].split()[0]


def texts(rounds: int, peer: str) -> Iterable[Entry]:
    """``--version`` and help, from exec to exit."""
    for ours_says, qemu_says in (("--version", "--version"), ("--help", "-help")):
        for command in (ours(ours_says), [QEMU, qemu_says]):
            wall_ms(command)
        found = alternate(lambda: wall_ms(ours(ours_says)), lambda: wall_ms([QEMU, qemu_says]), rounds)  # noqa: B023
        yield found.row(f"{ours_says}, exec to exit", "ms", QEMU, peer)
        if ours_says == "--version":
            yield alone("--version, exec to exit: the limit", "ms", found.ours, at_most=VERSION_MS)


def machines(rounds: int, peer: str) -> Iterable[Entry]:
    """Four devices, from exec on, and the memory at rest."""
    with stage() as folder:
        commands = our_machine(folder), qemus_machine(folder)
        pairs = [[start(command, folder, memory=n == 0) for command in commands] for n in range(rounds)]
        for name, field in (("the hypervisor's first call", "vm"), ("the first guest instruction", "run")):
            times = [tuple(getattr(one, field) * 1000 for one in pair) for pair in pairs[1:] or pairs]
            found = Alternated(ours=tuple(t[0] for t in times), peer=tuple(t[1] for t in times))
            yield found.row(f"four devices, exec to {name}", "ms", QEMU, peer)
        mine, other = (one.memory for one in pairs[0])
        found = Alternated(ours=(mine,), peer=(other,))
        yield found.row("four devices, memory without the guest's", "MB", QEMU, peer)
        yield alone("four devices, memory: the limit", "MB", [mine], at_most=MEMORY_MB)


def rows(quick: bool) -> Iterable[Entry]:
    """All rows."""
    peer, rounds = version(), QUICK_ROUNDS if quick else ROUNDS
    yield from texts(rounds, peer)
    try:
        yield from machines(rounds, peer)
    except PeerMissing as e:
        yield Skipped("four devices", str(e))


def main() -> int:
    """Measure and print; 0 also where there is nobody to compare with."""
    try:
        for line in table(rows(quick=False)):
            print(line)
    except PeerMissing as e:
        print(f"bench_start: {e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
