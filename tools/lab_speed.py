"""Speed of a stock guest's disk and network card with acrn-dm of this tree beside acrn-dm of another one.

``python -m tools.lab_speed --other TREE`` boots one guest with each in the lab's outer VM, from the same kernel and
root file system and with the same command line, and has them measure by turns: fio on a disk whose image is in memory,
iperf3 over a tap both ways. The other tree is to be built (``make ext``). It prints medians, and the median of the
rounds' ratios; the exit status says whether what is wanted is kept. All of it is emulated: ratios count, not figures.

A guest's kernel and fio have a limit of their own, which no device passes: what they reach where the guest's kernel
itself answers each request at once (null_blk) is measured beside ours, too.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs

from acrn_dm.testing.guest.inner.shell import CONSOLE_SLOT, SERIAL_PORT, GuestShell
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from benchmarks.rows import Row, alternate, table
from lab.paths import LAB, ROOT

DISK_MIB = 128
SETTLE_S = 1
WARM_UP_S = 3
PROGRAMS = ("fio", "iperf3")
MODULES = ("null_blk",)
OURS, AT_ONCE = "/dev/vda", "/dev/nullb0"
KINDS = ("disk", "net")
BEGAN = time.monotonic()


@attrs.frozen(kw_only=True)
class Cell:
    """One figure: fio's or iperf3's *options*, and what the ratio is to be at least."""

    name: str
    options: str
    at_least: float


DISK_CELLS = (
    Cell(name="4 KiB reads, depth 1", options="--rw=randread --bs=4k --iodepth=1", at_least=3),
    Cell(name="4 KiB writes, depth 1", options="--rw=randwrite --bs=4k --iodepth=1", at_least=3),
    Cell(name="4 KiB reads, depth 32", options="--rw=randread --bs=4k --iodepth=32", at_least=3),
    Cell(name="4 KiB writes, depth 32", options="--rw=randwrite --bs=4k --iodepth=32", at_least=3),
    Cell(name="1 MiB reads, depth 4", options="--rw=read --bs=1m --iodepth=4", at_least=2),
)
NET_CELLS = (
    Cell(name="TCP, guest to host", options="", at_least=1),
    Cell(name="TCP, host to guest", options="-R", at_least=1),
)


@attrs.define(eq=False)
class Side:
    """A guest of one tree's acrn-dm, and the address of its tap."""

    shell: GuestShell
    host: str

    def fio(self, options: str, seconds: int, disk: str = OURS) -> float:
        """Requests a second."""
        command = (
            f"fio --name=cell --filename={disk} --direct=1 --ioengine=libaio --size=100% --time_based --thread "
            f"--runtime={seconds} --ramp_time={SETTLE_S} --norandommap --randrepeat=0 --output-format=json {options}"
        )
        text = self.shell.run(command, seconds + 60)
        (job,) = json.loads(text[text.index("{") :])["jobs"]
        if job["error"]:
            raise RuntimeError(f"fio failed: {text}")
        return float(job["read"]["iops"] or job["write"]["iops"])

    def iperf(self, options: str, seconds: int) -> float:
        """Bits a second that arrived."""
        text = self.shell.run(f"iperf3 -c {self.host} -t {seconds} -O {SETTLE_S} -J {options}", seconds + 60)
        return float(json.loads(text)["end"]["sum_received"]["bits_per_second"])


@contextlib.contextmanager
def tap(vm: OuterVm, name: str, host: str) -> Iterator[None]:
    """A tap, up, with an iperf3 server on it."""
    made = f"ip tuntap add dev {name} mode tap && ip address add {host}/30 dev {name} && ip link set {name} up"
    if (done := vm.run(made)).rc:
        raise RuntimeError(done.stderr)
    server = vm.spawn(["iperf3", "-s", "-B", host])
    try:
        yield
    finally:
        server.signal(9)


@contextlib.contextmanager
def side(vm: OuterVm, tree: Path, number: int, options: argparse.Namespace) -> Iterator[Side]:
    """A guest of the acrn-dm of *tree*; *number* tells guests apart."""
    name, host, guest = f"speed{number}", f"198.51.100.{4 * number + 1}", f"198.51.100.{4 * number + 2}"
    scratch = LAB / "speed" / name
    scratch.mkdir(parents=True, exist_ok=True)
    image = f"/tmp/{name}.img"
    if (done := vm.run(f"head -c {DISK_MIB}M /dev/zero | tr '\\0' x > {image}")).rc:
        raise RuntimeError(done.stderr)
    kernel = debian_kernel()
    argv = ["--cpus", str(options.cpus), "-m", "512M", "-k", str(kernel.quick_image)]
    argv += ["-s", f"{CONSOLE_SLOT + 1},virtio-blk,{options.disk.format(image)}"]
    argv += ["-s", f"{CONSOLE_SLOT + 2},virtio-net,tap={name}{options.card}"]
    with tap(vm, name, host):
        shell = GuestShell(
            vm,
            kernel,
            scratch,
            argv,
            programs=PROGRAMS,
            modules=MODULES,
            program=[str(tree / ".venv" / "bin" / "acrn-dm")],
            port=SERIAL_PORT + number,
        )
        shell.run(f"ip link set eth0 up && ip address add {guest}/30 dev eth0")
        say(f"a guest of {tree} is up")
        yield Side(shell, host)
        if status := shell.power_off():
            raise RuntimeError(f"acrn-dm of {tree} ended with {status}: {shell.process.stderr}")


def say(what: str) -> None:
    """Tell of what lasts."""
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {what}", file=sys.stderr, flush=True)


def rows(ours: Side, other: Side, options: argparse.Namespace) -> Iterator[Row]:
    """The figures, one after the other."""
    for kind, cells, unit in (("disk", DISK_CELLS, "requests/s"), ("net", NET_CELLS, "bit/s")):
        for cell in cells if kind in options.what else ():
            measures = [it.fio if kind == "disk" else it.iperf for it in (ours, other)]
            if cell is cells[0]:
                for measure in measures:  # code is translated when it first runs
                    measure(cell.options, WARM_UP_S)
            one, two = (partial(measure, cell.options, options.seconds) for measure in measures)
            found = alternate(one, two, options.rounds)
            yield found.row(cell.name, unit, str(options.other), "", at_least=cell.at_least)
            if kind == "disk":
                limit = partial(ours.fio, cell.options, options.seconds, AT_ONCE)
                yield alternate(one, limit, options.rounds).row(f"... {cell.name}", unit, "the guest alone", "")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab_speed", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--other", type=Path, required=True, metavar="TREE", help="a built checkout of acrn-dm")
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (%(default)s)")
    parser.add_argument("--cpus", type=int, default=1, help="vCPUs of a guest (%(default)s)")
    parser.add_argument("--disk", default="{}", metavar="TEXT", help="virtio-blk's options, with {} for the image")
    parser.add_argument("--card", default="", metavar="TEXT", help="what follows virtio-net's tap=NAME")
    parser.add_argument("what", nargs="*", choices=[*KINDS, []], help="both unless one is named")
    options = parser.parse_args(arguments)
    options.what = options.what or KINDS
    options.other = options.other.resolve()
    return options


def main(arguments: Sequence[str]) -> int:
    """Exit status: 1 when something is slower than wanted."""
    options = parse(arguments)
    kept = True
    with (
        OuterVm(memory_mib=4096, name="speed") as vm,
        side(vm, ROOT, 1, options) as ours,
        side(vm, options.other, 2, options) as other,
    ):
        say(f"the outer VM was up in {vm.boot_seconds:.0f} s")
        print(table([])[0], flush=True)
        for row in rows(ours, other, options):
            print(table([row])[-1], flush=True)
            kept = kept and row.kept
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
