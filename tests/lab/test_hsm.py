"""Whole machines on the emulated HSM: the ``hsm`` plugin, as it is, boots a stock kernel through real ioctls."""

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.lab import demo, images, vmm
from tests.lab.drive import Plan
from tests.lab.errors import LabError
from tests.lab.kernel import debian_kernel
from tests.lab.paths import LAB, ROOT
from tests.lab.test_machine import LIMIT, Rig, Run, assert_clean, wait_until
from tests.lab.vm import GuestProcess, OuterVm
from tests.rig.build import RigUnavailable, library

pytestmark = pytest.mark.lab

LIBRARY = "librig.so"


@attrs.define(eq=False)
class Preloading:
    """The outer VM, whose processes find the emulated HSM."""

    vm: OuterVm
    environment: Mapping[str, str]

    def spawn(self, argv: Sequence[str | Path], *, cwd: Path) -> GuestProcess:
        return self.vm.spawn(argv, cwd=cwd, env=self.environment)

    def alive(self) -> bool:
        return self.vm.alive()

    def restart(self) -> None:
        self.vm.restart()


@attrs.define(eq=False)
class Hsm:
    """Boots machines and reads what the rig wrote."""

    rig: Rig
    scratch: Path
    clock: str  # for the kernel's command line

    def start(self, *arguments: str, cpus: int = 1, append: str = "", **how: Any) -> GuestProcess:
        affinity = ",".join(str(cpu) for cpu in range(cpus))
        options = ("--hypervisor", "hsm", "--cpu_affinity", affinity)
        return self.rig.start(*options, *arguments, append=f"{self.clock} {append}", **how)

    def boot(self, *arguments: str, timeout: float = LIMIT, **how: Any) -> Run:
        """As the rig's, once more where it was the outer VM that hung or ended."""
        try:
            return self.rig.finish(self.start(*arguments, **how), timeout)
        except LabError:
            if self.rig.vm.alive():
                raise
        self.rig.vm.restart()
        for old in self.scratch.iterdir():
            if old.name != LIBRARY:
                old.unlink()
        return self.rig.finish(self.start(*arguments, **how), timeout)

    def assert_clean(self, run: Run) -> None:
        """The guest is content, and the module, too: no rule broken, no VM left behind."""
        assert self.violations() == []
        assert_clean(run, self.rig.digest)
        calls = self.calls()
        assert calls.count("CREATE_VM") == calls.count("DESTROY_VM")
        assert calls.count("open") == calls.count("close")

    def violations(self) -> list[str]:
        file = self.scratch / "rig-report"
        return file.read_text().splitlines() if file.exists() else []

    def calls(self, *without: str) -> list[str]:
        rows = [json.loads(line) for line in (self.scratch / "rig-trace").read_text().splitlines()]
        return [row["call"] for row in rows if row["call"] not in without]

    def stats(self) -> list[dict[str, int]]:
        return [json.loads(line) for line in (self.scratch / "rig-stats").read_text().splitlines()]


def tsc_frequency(lab: OuterVm) -> str:
    """A port access takes 0.25 ms in emulation below emulation; the kernel's own calibration puts up with 0.02 ms at
    most (arch/x86/kernel/tsc.c, SMI_TRESHOLD), and without its TSC it reads the ACPI timer tens of thousands of times.
    """
    found = re.search(r"tsc: Detected ([0-9.]+) MHz", lab.run(["dmesg"]).stdout)
    assert found is not None
    return f"tsc_early_khz={round(float(found[1]) * 1000)}"


@pytest.fixture
def hsm(lab: OuterVm, request: pytest.FixtureRequest) -> Hsm:
    try:
        built = library()
    except RigUnavailable as e:
        pytest.skip(str(e))
    scratch = LAB / "hsm" / request.node.name.replace("/", "_")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    preload = shutil.copy(built, scratch / LIBRARY)
    files = {f"RIG_{name.upper()}": str(scratch / f"rig-{name}") for name in ("report", "trace", "stats")}
    # As RIG_REQUESTS=1, to look closer.
    own = {name: value for name, value in os.environ.items() if name.startswith("RIG_")}
    environment = {"LD_PRELOAD": str(preload), **files, **getattr(request, "param", {}), **own}
    rig = Rig(Preloading(lab, environment), debian_kernel(), scratch)  # type: ignore[arg-type]
    return Hsm(rig, scratch, tsc_frequency(lab))


@pytest.mark.parametrize("cpus", [1, 2])
def test_stock_kernel_boots_with_its_cpus_and_disk(hsm: Hsm, cpus: int) -> None:
    run = hsm.boot(cpus=cpus)
    hsm.assert_clean(run)
    assert run.one("cpus") == str(cpus)
    assert hsm.stats()[0]["ioreqs"] < 5_000  # the original: 13,300
    assert hsm.calls("ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH", "SET_IRQLINE", "INJECT_MSI")[-4:] == [
        *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close")
    ]


def test_five_reboots_in_one_process_leave_nothing_behind(hsm: Hsm) -> None:
    run = hsm.boot(action="reboot", reboots=5, timeout=600)
    hsm.assert_clean(run)
    assert run.report["boot"] == ["1", "2", "3", "4", "5", "6"]
    started = [row for row in run.witness if row["event"] == "started"]
    for what in ("fds", "threads"):
        assert len({row[what] for row in started[1:]}) == 1, (what, started)
    assert hsm.calls().count("START_VM") == 6


@pytest.mark.parametrize("append", ["pci=nomsi", "virtio_pci.force_legacy=1"], ids=["intx", "legacy"])
def test_guest_works_with_the_other_ways_to_drive_a_device(hsm: Hsm, append: str) -> None:
    """INTx is active low on ACRN, and on pins that KVM's own I/O APIC does not have."""
    hsm.assert_clean(hsm.boot(append=append))


@pytest.mark.parametrize("hsm", [{"RIG_ACRN": "1", "RIG_PM": "1", "RIG_SPURIOUS": "3"}], indirect=True, ids=["acrn"])
def test_guest_works_on_acrns_own_kernel(hsm: Hsm) -> None:
    """Asynchronous kicks, the event ring, processor states; and an ATTACH that returns for nothing now and then."""
    hsm.assert_clean(hsm.boot())
    (stats,) = hsm.stats()
    assert stats["spurious"] > 100


@pytest.mark.parametrize("hsm", [{"RIG_SLOW": "1"}], indirect=True, ids=["slow"])
def test_slots_that_the_module_handles_are_left_alone(hsm: Hsm) -> None:
    hsm.assert_clean(hsm.boot(cpus=2))
    assert hsm.stats()[0]["kernel_handled"] > 0


# A machine that was killed has left its socket, which refuses.
RESUME = """
import contextlib, pathlib, socket, struct
for path in pathlib.Path("/run/acrn/mngr").iterdir():
    with socket.socket(socket.AF_UNIX) as manager, contextlib.suppress(ConnectionRefusedError):
        manager.connect(str(path))
        manager.sendall(struct.pack("<QIIQ256x", 0x67736D206D6D76, 5, 0, 0))
        print(struct.unpack_from("<i", manager.recv(280), 24)[0])
"""


def test_guest_suspends_and_the_manager_resumes_it(hsm: Hsm, lab: OuterVm) -> None:
    process = hsm.start(cpus=2, action="suspend")
    trace = hsm.scratch / "rig-trace"
    wait_until(lambda: trace.exists() and "PAUSE_VM" in trace.read_text(), LIMIT)
    assert lab.run([sys.executable, "-c", RESUME]).stdout == "0\n"
    run = hsm.rig.finish(process)
    hsm.assert_clean(run)
    assert run.report["resumed"] == ["2 cpus, disk as before"]
    assert hsm.calls().count("RESET_VM") == 1


@pytest.mark.parametrize("cpus", [1, 2])
def test_everything_that_the_demonstration_shows_works(hsm: Hsm, lab: OuterVm, cpus: int) -> None:
    log = demo.Log()
    disk = demo.Disk(hsm.scratch / "disk.img")
    kernel = debian_kernel()
    settings = {"READ_MIB": str(demo.READ_MIB), "WRITE_MIB": str(demo.WRITE_MIB), "PINGS": str(demo.PINGS)}
    machine = vmm.Machine(
        kernel=str(kernel.image),
        initramfs=str(images.guest_initramfs(kernel, init=images.guest_script("demo"), settings=settings)),
        disk="/dev/shm/hsm-demo.img",
        tap="acrnhsm0",
        console="/run/hsm-demo.console",
        report="/run/hsm-demo.report",
    )
    ids = ",".join(str(cpu) for cpu in range(cpus))
    preload = [f"{name}={value}" for name, value in hsm.rig.vm.environment.items()]  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "acrn_dm", *vmm.command("acrn-dm", machine)[1:]]
    command[command.index(vmm.COMMAND_LINE)] += f" {hsm.clock}"
    plan = Plan(
        argv=["env", *preload, *command, "--hypervisor", "hsm", "--cpu_affinity", ids],
        console=machine.console,
        report=machine.report,
        tap=machine.tap,
        host_address=demo.HOST_ADDRESS,
        guest_address=demo.GUEST_ADDRESS,
        nonce=disk.nonce,
        expected={"kernel": kernel.version, "disk-read": disk.digest},
        serial_log=str(hsm.scratch / "serial"),
        dmesg=str(hsm.scratch / "dmesg"),
    )
    (hsm.scratch / "plan.json").write_text(json.dumps(attrs.asdict(plan)))
    lab.run(["cp", "--sparse=always", str(disk.path), machine.disk])
    driver = [sys.executable, "-m", "tests.lab.drive", str(hsm.scratch / "plan.json")]
    lab.run(driver, cwd=ROOT, timeout=demo.LIMIT, on_output=log.events)
    lab.run(["cp", machine.disk, str(disk.path)])
    failed = {name: check.detail for name, check in log.checks.items() if not check.ok}
    assert failed == {}
    assert {"rng", "disk-read", "disk-write", "ping", "console", "exit"} <= set(log.checks)
    assert disk.verify().ok
    assert hsm.violations() == []
    assert hsm.calls().count("DESTROY_VM") == 1
