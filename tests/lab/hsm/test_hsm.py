"""Whole machines on the emulated HSM: the ``hsm`` plugin, as it is, boots a stock kernel through real ioctls."""

import sys
from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.hsm.hsm_scene import Hsm, demonstrate, make_hsm
from tests.lab.machines.small_machine import LIMIT, wait_until

pytestmark = pytest.mark.lab

# Calls between the ones whose order counts. A kernel that resets its virtio devices when it goes down (6.1.0-56 does,
# 6.1.0-50 does not) lets the eventfds go itself; else that is done after PAUSE_VM.
OFTEN = ("ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH", "SET_IRQLINE", "INJECT_MSI", "IRQFD", "IOEVENTFD")


@pytest.fixture
def hsm(lab: OuterVm, request: pytest.FixtureRequest) -> Hsm:
    return make_hsm(lab, request)


@pytest.fixture
def tap(lab: OuterVm) -> Iterator[str]:
    lab.run("ip tuntap add dev hsmcard mode tap && ip link set hsmcard up")
    yield "hsmcard"
    lab.run("ip link delete hsmcard")


@pytest.mark.parametrize("cpus", [1, 2])
def test_stock_kernel_boots_with_its_cpus_disk_card_and_console(hsm: Hsm, tap: str, cpus: int) -> None:
    run = hsm.boot("-s", f"4,virtio-net,tap={tap}", cpus=cpus)
    hsm.assert_clean(run, devices=3)
    assert run.one("cpus") == str(cpus)
    assert hsm.stats()[0]["ioreqs"] <= 3_000  # the original: 3,380 to 4,025
    assert hsm.calls(*OFTEN)[-4:] == ["PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"]


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
    run = hsm.boot(append=append)
    hsm.assert_clean(run)
    assert run.one("modern") == ("0" if "force_legacy" in append else "2")


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


@pytest.mark.parametrize("hsm", [{"RIG_VHM": "1"}], indirect=True, ids=["vhm"])
def test_stock_kernel_boots_over_the_interface_of_2018(hsm: Hsm) -> None:
    run = hsm.boot(hypervisor="vhm", cpus=2)
    hsm.assert_clean(run)
    assert run.one("cpus") == "2"
    calls = hsm.calls(*OFTEN, "PM_GET_CPU_STATE")
    first = calls.index("GET_API_VERSION")
    assert calls[first : first + 5] == ["GET_API_VERSION", "CREATE_VM", "CREATE_VCPU", "CREATE_VCPU", "SET_MEMSEG"]
    assert calls[-4:] == ["PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"]


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
def test_everything_that_the_demonstration_shows_works(hsm: Hsm, cpus: int) -> None:
    demonstrate(hsm, cpus)
