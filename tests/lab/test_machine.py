"""Whole machines in the lab: a stock kernel under acrn-dm, in the shapes that people use."""

import hashlib
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest

from tests.lab import images
from tests.lab.dmesg import additional_lines
from tests.lab.errors import LabError
from tests.lab.kernel import Kernel, debian_kernel
from tests.lab.paths import LAB, ROOT
from tests.lab.reference import reference_log
from tests.lab.vm import GuestProcess, OuterVm

pytestmark = pytest.mark.lab

COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"
DISK_KIB = 1024
LIMIT = 150.0


@attrs.frozen(kw_only=True)
class Run:
    """What is left of one run of acrn-dm."""

    rc: int
    output: str
    report: dict[str, list[str]]  # what the guest said, by the line's first word
    witness: list[dict[str, int | str]]

    def one(self, word: str) -> str:
        """The guest's only line of that word."""
        (line,) = self.report[word]
        return line


@attrs.define(eq=False)
class Rig:
    """Starts acrn-dm in the outer VM with a disk and a report port."""

    vm: OuterVm
    kernel: Kernel
    scratch: Path
    digest: str = ""

    def make_disk(self) -> Path:
        """Its disk: blank, for the count of boots, then noise of known ``digest``."""
        disk = random.Random(7).randbytes(DISK_KIB * 1024)
        blank = bytes(64 << 10)
        (self.scratch / "disk").write_bytes(blank + disk[len(blank) :])
        self.digest = hashlib.sha256(disk[len(blank) :]).hexdigest()
        return self.scratch / "disk"

    def start(
        self,
        *arguments: str,
        action: str = "poweroff",
        append: str = "",
        reboots: int = 0,
        lspci: bool = False,
        programs: Sequence[str] = (),
        disk: str = "",
        boot: Callable[[Path, str], Sequence[str]] | None = None,
    ) -> GuestProcess:
        """Boot with *arguments* added to a small machine; uncompressed, because unpacking takes seconds here.

        *disk*: options of virtio-blk, where its medium has the content of ``make_disk``. *boot* turns initramfs and
        command line into other options to boot them by.
        """
        disk = disk or str(self.make_disk())
        settings = {"ACTION": action, "REBOOTS": str(reboots)}
        modules = [*images.GUEST_MODULES, *(["button"] if action == "button" else [])]
        initramfs = images.guest_initramfs(
            self.kernel,
            init=images.guest_script("machine"),
            modules=modules,
            settings=settings,
            lspci=lspci,
            programs=programs,
        )
        command_line = f"{COMMAND_LINE} {append}".strip()
        kernel = () if "-k" in arguments else ("-k", str(self.kernel.quick_image))
        direct = (*kernel, "-r", str(initramfs), "-B", command_line)
        argv = [
            *(sys.executable, "-m", "tests.lab.observed", str(self.scratch / "witness"), "--hypervisor", "kvm"),
            *("-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", "com1,stdio"),
            *("-s", f"3,virtio-blk,{disk}"),
            *("-s", f"5,virtio-console,file:report={self.scratch / 'report'}"),
            *(direct if boot is None else boot(initramfs, command_line)),
            *(*arguments, "lab"),
        ]
        return self.vm.spawn(argv, cwd=ROOT)

    def finish(self, process: GuestProcess, timeout: float = LIMIT) -> Run:
        """Wait for the end."""
        process.close_stdin()
        result = process.wait(timeout)
        report: dict[str, list[str]] = {}
        if (self.scratch / "report").exists():
            for line in (self.scratch / "report").read_text(errors="replace").splitlines():
                word, _, rest = line.partition(" ")
                report.setdefault(word, []).append(rest)
        rows = (self.scratch / "witness").read_text().splitlines() if (self.scratch / "witness").exists() else []
        output = result.stdout + result.stderr
        return Run(rc=result.rc, output=output, report=report, witness=[json.loads(row) for row in rows])

    def boot(self, *arguments: str, timeout: float = LIMIT, **how: object) -> Run:
        """``start`` and ``finish``; once more where it was the outer VM that hung or ended, not the guest."""
        try:
            return self.finish(self.start(*arguments, **how), timeout)  # type: ignore[arg-type]
        except LabError:
            if self.vm.alive():
                raise
        self.vm.restart()
        self.clean()
        return self.finish(self.start(*arguments, **how), timeout)  # type: ignore[arg-type]

    def clean(self) -> None:
        """Forget what an earlier run left."""
        for old in self.scratch.iterdir():
            old.unlink()


@pytest.fixture
def rig(lab: OuterVm, request: pytest.FixtureRequest) -> Rig:
    scratch = LAB / "machine" / request.node.name.replace("/", "_")
    scratch.mkdir(parents=True, exist_ok=True)
    if not lab.alive():
        lab.restart()
    it = Rig(lab, debian_kernel(), scratch)
    it.clean()
    return it


def assert_clean(run: Run, digest: str, devices: int = 2) -> None:
    """The guest ran to its end, saw its disk as it is, and all virtio devices have drivers."""
    assert run.rc == 0, run.output
    assert run.report["digest"] == [digest] * len(run.report["boot"])
    assert set(run.report["drivers"]) == {str(devices)}


def assert_quiet(run: Run, kernel: Kernel) -> None:
    """The guest's kernel has said nothing of level 4 or below that it does not say under QEMU."""
    log = "\n".join(run.report.get("log", []))
    assert additional_lines(log, reference_log(kernel)) == []


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_guest_sees_its_cpus(rig: Rig, cpus: int) -> None:
    run = rig.boot("--cpus", str(cpus))
    assert_clean(run, rig.digest)
    assert_quiet(run, rig.kernel)
    assert run.one("cpus") == str(cpus)


@pytest.mark.parametrize(("size", "least_kib", "most_kib"), [("256M", 180_000, 262_144), ("5G", 4_900_000, 5_242_880)])
def test_guest_sees_its_memory(rig: Rig, size: str, least_kib: int, most_kib: int) -> None:
    run = rig.boot("-m", size)
    assert_clean(run, rig.digest)
    assert least_kib < int(run.one("memory")) <= most_kib


def test_boot_makes_at_most_2000_configuration_accesses_and_calibrates_the_tsc(rig: Rig) -> None:
    run = rig.boot()
    assert_clean(run, rig.digest)
    assert 0 < int(run.witness[-1]["config_accesses"]) <= 2000
    assert any("MHz" in line for line in run.report["tsc"])
    assert not any("unstable" in line.lower() for line in run.report["tsc"])


def test_five_reboots_in_one_process_leave_fds_threads_and_mappings_as_they_were(rig: Rig) -> None:
    run = rig.boot(action="reboot", reboots=5, timeout=600)
    assert_clean(run, rig.digest)
    assert run.report["boot"] == ["1", "2", "3", "4", "5", "6"]
    started = [row for row in run.witness if row["event"] == "started"]
    assert [row["boot"] for row in started] == [0, 1, 2, 3, 4, 5]
    for what in ("fds", "threads", "mappings"):
        assert len({row[what] for row in started[1:]}) == 1, (what, started)
        assert started[-1][what] <= started[1][what]


@pytest.mark.parametrize(
    ("append", "messages"),
    [("virtio_pci.force_legacy=1", True), ("pci=nomsi", False), ("virtio_pci.force_legacy=1 pci=nomsi", False)],
    ids=["legacy", "intx", "legacy-intx"],
)
def test_guest_works_with_the_other_ways_to_drive_a_device(rig: Rig, append: str, messages: bool) -> None:
    run = rig.boot(append=append)
    assert_clean(run, rig.digest)
    assert run.one("modern") == ("0" if "force_legacy" in append else "2")
    lines, msi = map(int, run.one("interrupts").split())
    assert lines > 0
    assert (msi > 0) is messages


def test_one_msi_vector_is_enough(rig: Rig) -> None:
    assert_clean(rig.boot("--virtio_msi"), rig.digest)


def test_compressed_kernel_boots_by_its_32_bit_entry(rig: Rig) -> None:
    assert rig.kernel.image.read_bytes()[0x202:0x206] == b"HdrS"
    assert_clean(rig.boot("-k", str(rig.kernel.image)), rig.digest)


def test_uncompressed_kernel_boots_by_its_pvh_entry(rig: Rig) -> None:
    assert rig.kernel.quick_image.read_bytes()[:4] == b"\x7fELF"
    assert_clean(rig.boot("-k", str(rig.kernel.quick_image)), rig.digest)


def wait_until(condition: Callable[[], bool], limit: float) -> None:
    """Poll what only the outer VM can change."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the guest did not get there in time"
        time.sleep(0.1)


def test_sigterm_presses_the_power_button_and_the_guest_powers_off(rig: Rig) -> None:
    process = rig.start(action="button")
    report = rig.scratch / "report"
    wait_until(lambda: report.exists() and "waiting" in report.read_text(), LIMIT)
    process.signal(signal.SIGTERM)
    assert_clean(rig.finish(process, 60), rig.digest)


def test_second_sigterm_forces_the_guest_off_with_status_1(rig: Rig) -> None:
    process = rig.start(action="button", append="acpi=off")
    witness = rig.scratch / "witness"
    wait_until(witness.exists, LIMIT)
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGINT)
    run = rig.finish(process, 60)
    assert run.rc == 1
    assert "forced off: asked a second time" in run.output


def test_power_button_wakes_a_guest_that_suspended_to_ram(rig: Rig) -> None:
    process = rig.start("--cpus", "2", action="suspend")
    witness = rig.scratch / "witness"
    wait_until(lambda: witness.exists() and '"event": "suspend"' in witness.read_text(), LIMIT)
    process.signal(signal.SIGTERM)
    run = rig.finish(process)
    assert_clean(run, rig.digest)
    assert run.report["resumed"] == ["2 cpus, disk as before"]


# Waits for the guest to stand still, makes room, lets it go on; prints what it was told.
MAKE_ROOM = """
import json, os, socket, sys, time
monitor = socket.socket(socket.AF_UNIX)
monitor.settimeout(120)
monitor.connect("/run/full/monitor")
lines = monitor.makefile("rb")
def ask(command):
    monitor.sendall(json.dumps({"command": command}).encode())
    return json.loads(lines.readline())
assert ask("register_vm_event_client") == {"ack": 0}
event = json.loads(lines.readline())
time.sleep(float(sys.argv[1]))
os.unlink("/run/full/other")
print(event["vm_event"], event["device"], event["operation"], event["errno"], ask("resume")["ack"])
"""
ROOM = "mkdir /run/full && mount -t tmpfs -o size=3m none /run/full && truncate -s 4M /run/full/disk"
STANDSTILL_S = 0.5  # by hand, 60 shows that no watchdog of the guest takes it for a lock-up


def test_full_host_disk_is_a_pause_for_the_guest_and_no_error(rig: Rig) -> None:
    made = rig.vm.run(f"{ROOM} && head -c 2M /dev/zero > /run/full/other")
    assert made.rc == 0, made.stderr
    try:
        process = rig.start("--cmd_monitor", "/run/full/monitor", action="fill", disk="/run/full/disk")
        witness = rig.scratch / "witness"
        wait_until(witness.exists, LIMIT)
        told = rig.vm.run([sys.executable, "-c", MAKE_ROOM, str(STANDSTILL_S)], timeout=LIMIT)
        assert told.stdout == "256 virtio-blk-3:0 write ENOSPC 0\n", told.stderr
        run = rig.finish(process)
    finally:
        rig.vm.run("umount -l /run/full; rmdir /run/full")
    assert run.rc == 0, run.output
    assert (run.one("filled"), run.one("read"), run.one("complaints")) == ("0", "as written", "0")


# What lspci 3.9 calls the structure of type 5, the configuration access window; QEMU's devices show the same line.
WINDOW = "VirtIO: <unknown>"


def complaints(lspci: Sequence[str]) -> list[str]:
    """Lines in which lspci says that it can't make sense of what it read."""
    lspci = [line for line in lspci if not line.endswith(WINDOW)]
    marks = ("<access denied>", "unknown", "!!!", "<?>", "bogus", "invalid", "<chain looped>", "<chain broken>")
    return [line for line in lspci if any(mark in line.lower() for mark in marks)]


def test_lspci_decodes_every_capability_without_a_complaint(rig: Rig) -> None:
    run = rig.boot(lspci=True)
    assert_clean(run, rig.digest)
    text = run.report["lspci"]
    assert complaints(text) == []
    for structure in ("CommonCfg", "ISR", "DeviceCfg", "Notify"):
        assert any(f"VirtIO: {structure}" in line for line in text), structure
    assert sum(line.endswith(WINDOW) for line in text) == 2
    assert sum("MSI-X: Enable+" in line for line in text) == 2
