"""Whole machines in the lab: a stock kernel under acrn-dm, in the shapes that people use."""

import pwd
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lab.machines.conftest import Shape
from tests.lab.machines.small_machine import LIMIT, Rig, Run, assert_clean, assert_quiet, wait_until
from tests.lab.machines.windows import POLLING, assert_sees_windows
from tests.lab.processes import BROKER, HELPER, of, processes
from tests.lab.stemmed import PLAIN
from tests.open_python import closed_folder

pytestmark = pytest.mark.lab


# Machines that several tests look at, each at another side: the small one as its guest reboots again and again, the
# large one with a compressed kernel and lspci.
SMALL, LARGE = ("--cpus", "1", "-m", "256M"), ("--cpus", "4", "-m", "5G", "-k", "compressed")
REBOOTS = 2  # what leaks at each boot is there at the second already; the first has what stays for good

Look = tuple[Rig, Run]


@pytest.fixture(scope="module")
def small(shape: Shape) -> Look:
    return shape(*SMALL, action="reboot", reboots=REBOOTS, timeout=600)


@pytest.fixture(scope="module")
def large(shape: Shape) -> Look:
    return shape(*LARGE, lspci=True)


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Look:
    """The machine whose fixture the parameter names."""
    found: Look = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(("look", "cpus"), [("small", 1), ("large", 4)], indirect=["look"], ids=["1", "4"])
def test_guest_sees_its_cpus(look: Look, cpus: int) -> None:
    """Two it sees in other tests, as in ``test_kernels``."""
    rig, run = look
    assert_clean(run, rig.digest)
    assert_quiet(run, rig.kernel)
    assert set(run.report["cpus"]) == {str(cpus)}


@pytest.mark.parametrize(
    ("look", "least_kib", "most_kib"),
    [("small", 180_000, 262_144), ("large", 4_900_000, 5_242_880)],
    indirect=["look"],
    ids=["256M-180000-262144", "5G-4900000-5242880"],
)
def test_guest_sees_its_memory(look: Look, least_kib: int, most_kib: int) -> None:
    rig, run = look
    assert_clean(run, rig.digest)
    assert all(least_kib < int(memory) <= most_kib for memory in run.report["memory"])


def test_boot_makes_at_most_2000_configuration_accesses_and_calibrates_the_tsc(small: Look) -> None:
    rig, run = small
    assert_clean(run, rig.digest)
    first = next(row for row in run.witness if row["event"] != "started")
    assert 0 < int(first["config_accesses"]) <= 2000
    assert any("MHz" in line for line in run.report["tsc"])
    assert not any("unstable" in line.lower() for line in run.report["tsc"])


def test_reboots_in_one_process_leave_fds_threads_and_mappings_as_they_were(small: Look) -> None:
    rig, run = small
    assert_clean(run, rig.digest)
    boots = range(REBOOTS + 1)
    assert run.report["boot"] == [str(number + 1) for number in boots]
    started = [row for row in run.witness if row["event"] == "started"]
    assert [row["boot"] for row in started] == [*boots]
    for what in ("fds", "threads", "mappings"):
        assert len({row[what] for row in started[1:]}) == 1, (what, started)
        assert started[-1][what] <= started[1][what]


def test_compressed_kernel_boots_by_its_32_bit_entry(large: Look) -> None:
    rig, run = large
    assert rig.kernel.image.read_bytes()[0x202:0x206] == b"HdrS"
    assert_clean(run, rig.digest)


def test_stock_kernel_takes_packed_rings_on_disk_and_console(large: Look) -> None:
    rig, run = large
    assert_clean(run, rig.digest)
    assert run.one("packed") == "2"


def test_uncompressed_kernel_boots_by_its_pvh_entry(small: Look) -> None:
    rig, run = small
    assert rig.kernel.quick_image.read_bytes()[:4] == b"\x7fELF"
    assert_clean(run, rig.digest)


# The other ways to drive a device, one in each of two tests below, beside what it is about; both at once are seen in
# the last one.
LEGACY, LINES = "virtio_pci.force_legacy=1", "pci=nomsi"


def assert_driven(run: Run, append: str) -> None:
    """The guest's drivers are what its command line forces them to be, and keep every clause that is looked at."""
    assert [line for line in run.output.splitlines() if "strict: " in line] == []
    assert run.one("drivers") == "2"
    assert run.one("modern") == ("0" if LEGACY in append else "2")
    lines, messages = map(int, run.one("interrupts").split())
    assert lines > 0
    assert (messages > 0) is (LINES not in append)


def has_begun(witness: Path) -> bool:
    """Whether the machine of that witness runs."""
    return witness.exists() and witness.stat().st_size > 0


def test_sigterm_presses_the_power_button_and_the_guest_powers_off(rig: Rig) -> None:
    process = rig.start(action="button", append=LEGACY, disk=f"{rig.make_disk()},strict=on")
    report = rig.scratch / "report"
    wait_until(lambda: report.exists() and "waiting" in report.read_text(), LIMIT)
    process.signal(signal.SIGTERM)
    run = rig.finish(process, 60)
    assert_clean(run, rig.digest)
    assert_driven(run, LEGACY)


def test_second_sigterm_forces_the_guest_off_with_status_1(rig: Rig) -> None:
    process = rig.start(action="button", append="acpi=off")
    witness = rig.scratch / "witness"
    wait_until(lambda: has_begun(witness), LIMIT)
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGINT)
    run = rig.finish(process, 60)
    assert run.rc == 1
    assert "forced off: asked a second time" in run.output


def test_power_button_wakes_a_guest_that_suspended_to_ram_of_a_process_without_rights(rig: Rig) -> None:
    """Its vCPUs, the virtual machine that it wakes in, and the next process of its disk are made without root's."""
    if (closed := closed_folder()) is not None:  # there is an overlay on it
        rig.vm.run(["chmod", "o+x", str(closed)])
    given_up = ("--user", "nobody", "--sandbox", "strict")
    disk = f"{rig.make_disk()},process=on,sandbox=strict"
    process = rig.start("--cpus", "2", *given_up, action="suspend", disk=disk)
    witness = rig.scratch / "witness"
    wait_until(lambda: witness.exists() and '"event": "suspend"' in witness.read_text(), LIMIT)
    found = processes(rig.vm)
    (helper,) = of(HELPER, found)
    (broker,) = of(BROKER, found)
    machine = found[int(broker.status["PPid"])]
    assert int(helper.status["PPid"]) == broker.pid
    for seen in (helper, machine):
        assert seen.confined
        assert seen.users == {str(pwd.getpwnam("nobody").pw_uid)}
    rig.vm.run(["kill", "-9", str(helper.pid)])
    process.signal(signal.SIGTERM)
    run = rig.finish(process)
    assert_clean(run, rig.digest)
    assert run.one("cpus") == "2"
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
        monitor, disk = ("--cmd_monitor", "/run/full/monitor"), "/run/full/disk,strict=on"
        process = rig.start(*monitor, action="fill", disk=disk, append=LINES)
        witness = rig.scratch / "witness"
        wait_until(lambda: has_begun(witness), LIMIT)
        told = rig.vm.run([*PLAIN, MAKE_ROOM, str(STANDSTILL_S)], timeout=LIMIT)
        assert told.stdout == "256 virtio-blk-3:0 write ENOSPC 0\n", told.stderr
        run = rig.finish(process)
    finally:
        rig.vm.run("umount -l /run/full; rmdir /run/full")
    assert run.rc == 0, run.output
    assert (run.one("filled"), run.one("read"), run.one("complaints")) == ("0", "as written", "0")
    assert_driven(run, LINES)


# What lspci 3.9 calls the structure of type 5, the configuration access window; QEMU's devices show the same line.
WINDOW = "VirtIO: <unknown>"


def complaints(lspci: Sequence[str]) -> list[str]:
    """Lines in which lspci says that it can't make sense of what it read."""
    lspci = [line for line in lspci if not line.endswith(WINDOW)]
    marks = ("<access denied>", "unknown", "!!!", "<?>", "bogus", "invalid", "<chain looped>", "<chain broken>")
    return [line for line in lspci if any(mark in line.lower() for mark in marks)]


def test_lspci_decodes_every_capability_without_a_complaint(large: Look) -> None:
    rig, run = large
    assert_clean(run, rig.digest)
    text = run.report["lspci"]
    assert complaints(text) == []
    for structure in ("CommonCfg", "ISR", "DeviceCfg", "Notify"):
        assert any(f"VirtIO: {structure}" in line for line in text), structure
    assert sum(line.endswith(WINDOW) for line in text) == 2
    assert sum("MSI-X: Enable+" in line for line in text) == 2


def test_guest_of_a_machine_that_polls_with_windows_and_one_message_works_and_sees_them(rig: Rig) -> None:
    """With legacy drivers, whose interrupts are lines then."""
    run = rig.boot(*POLLING, lspci=True, disk=f"{rig.make_disk()},strict=on", append=LEGACY)
    assert_clean(run, rig.digest)
    assert run.one("modern") == "0"
    assert_sees_windows(run)
