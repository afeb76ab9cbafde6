"""Devices in processes of their own: their start, their end, and what is refused."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from acrn_dm_blk_faults import driver as faults

from acrn_dm.backends.wire.message import ProtocolFeature
from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import Bdf
from acrn_dm.devices import virtio_blk
from acrn_dm.machine.devices import Devices
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import INDIRECT_DESC, NEEDS_RESET, PACKED, VERSION_1
from tests.backends.helper.helper_rig import answer, answers, backend, child, gone, kill, serving, sim, supervisor
from tests.backends.user.user_rig import IN, OUT, DiskLoad, block_content, eventually

BLOCK, BLOCKS = 4096, 600
FORMATS = [
    pytest.param(VERSION_1 | INDIRECT_DESC | packed, id=name) for packed, name in ((0, "split"), (PACKED, "packed"))
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(BLOCK * BLOCKS))
    return path


def test_disk_is_written_and_read_by_a_process_that_ends_with_the_machine(image: Path) -> None:
    with sim() as machine:
        function = machine.add("virtio-blk", f"{image},process=on", slot=3)
        driver = machine.driver(3)
        driver.start()
        pid = child(function).pid
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[4] == b"virtio-blk-3:0"
        assert not any(os.path.samefile(f"/proc/self/fd/{fd}", image) for fd in os.listdir("/proc/self/fd") if _is(fd))
        driver.queue(0).send([struct.pack("<IIQ", OUT, 0, 5), b"w" * 512], [1])
        driver.queue(0).kick()
        assert answer(machine, driver).data == b"\0"
    assert gone(pid, 0.1)
    assert image.read_bytes()[5 * 512 : 6 * 512] == b"w" * 512


def _is(fd: str) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("wanted", FORMATS)
def test_nothing_is_lost_when_the_process_is_killed_again_and_again(image: Path, wanted: int) -> None:
    content = block_content(7, BLOCK)
    killed = []
    with sim() as machine:
        function = machine.add("virtio-blk", f"{image},process=on", slot=3)
        driver = machine.driver(3)
        assert driver.start(wanted) & PACKED == wanted & PACKED
        load = DiskLoad(machine, driver, BLOCK, depth=32)

        def progress(completed: int) -> None:
            if completed >= 150 * (len(killed) + 1):
                killed.append(kill(function))

        load.on_progress = progress
        load.run(OUT, range(BLOCKS), content)
        load.on_progress = lambda _: None
        load.run(IN, range(BLOCKS), content)
        assert machine.failures == []
        assert child(function).pid not in killed
    assert len(killed) == 4
    assert all(image.read_bytes()[i * BLOCK : (i + 1) * BLOCK] == content(i) for i in range(BLOCKS))


@pytest.mark.parametrize("wanted", FORMATS)
def test_request_that_was_overtaken_is_done_by_the_next_process(image: Path, wanted: int) -> None:
    """The ring alone would say that the first of them is done, and not the last. In the first process that takes for
    ever.
    """
    slow = f"driver=faults,over={image},rule=delay=forever:on=write:sectors=0-0"
    with SimMachine(plugins=[virtio_blk, faults]) as machine:
        function = machine.add("virtio-blk", f"{slow},process=on", slot=3)
        driver = machine.driver(3)
        assert driver.start(wanted) & PACKED == wanted & PACKED
        assert backend(function)._peer.protocol & ProtocolFeature.INFLIGHT_SHMFD
        assert not backend(function)._way.relayed
        overtaken, *others = [
            driver.queue(0).send([struct.pack("<IIQ", OUT, 0, sector), b"w" * 512], [1]) for sector in range(4)
        ]
        driver.queue(0).kick()
        done: list[int] = []
        while len(done) < len(others):
            done += [completion.token for completion in answers(machine, driver)]
        assert sorted(done) == others
        supervisor(function).order = supervisor(function).order.replace(b"delay=forever", b"delay=0")
        kill(function)
        assert answer(machine, driver) == (overtaken, 1, b"\0")
    assert image.read_bytes()[: 4 * 512] == b"w" * 4 * 512


@pytest.mark.parametrize(("policy", "ends"), [("never", 1), ("on-failure:1", 2)])
def test_driver_is_asked_for_a_reset_when_no_process_follows(image: Path, policy: str, ends: int) -> None:
    with sim() as machine:
        function = machine.add("virtio-blk", f"{image},process=on,restart={policy}", slot=3)
        driver = machine.driver(3)
        driver.start()
        killed = [0]
        for _ in range(ends):
            eventually(machine, lambda: serving(function) not in (0, killed[-1]))
            assert not driver.registers.read("device_status") & NEEDS_RESET
            killed.append(kill(function))
        eventually(machine, lambda: bool(driver.registers.read("device_status") & NEEDS_RESET))
        ((_, error),) = machine.failures
        assert str(error) == (
            f"virtio-blk-3:0: in a process of its own: process {killed[-1]} was ended by SIGKILL; "
            f"it is not started again (restart={policy})"
        )
        machine.failures.clear()


def test_process_that_can_t_open_its_device_says_so_as_a_device_does(image: Path) -> None:
    said = []
    for more in ("", ",process=on"):
        machine = sim()
        machine.add("virtio-blk", f"{image.parent / 'none.img'}{more}", slot=3)
        with pytest.raises((ConfigError, HostError)) as caught:
            machine.start()
        machine.close()
        said.append(str(caught.value))
    assert all(line.endswith("none.img does not exist") for line in said)


def test_check_says_what_is_missing_before_anything_is_started(image: Path) -> None:
    missing = image.parent / "none.img"
    lines = []
    for more in ("", ",process=on"):
        machine = sim()
        lines.append(machine.add("virtio-blk", f"{missing}{more}", slot=3).check())
        machine.close()
    assert lines[0] == lines[1] != []


ALONE = """
import sys, time
from tests.backends.helper.helper_rig import child, sim
machine = sim()
function = machine.add("virtio-blk", sys.argv[1] + ",process=on", slot=3)
machine.start()
print(child(function).pid, flush=True)
time.sleep(600)
"""


def test_process_ends_with_its_machine_however_that_ends(image: Path) -> None:
    machine = subprocess.Popen([sys.executable, "-c", ALONE, str(image)], stdout=subprocess.PIPE, text=True)
    assert machine.stdout is not None
    pid = int(machine.stdout.readline())
    assert not gone(pid, 0.0)
    machine.send_signal(signal.SIGKILL)
    machine.wait()
    machine.stdout.close()
    assert gone(pid)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("virtio-blk", "vhost-user=/no/such,process=on", "its data is moved elsewhere already"),
        ("virtio-net", "tap=t0,vhost,process=on", "its data is moved elsewhere already"),
        ("virtio-console", "@stdio:console,process=on", "it stands on this process's terminal"),
        ("virtio-blk", "nodisk,process=on,in_order=on", "(in_order=on)"),
    ],
)
def test_what_can_t_be_in_a_process_of_its_own_is_one_line(kind: str, options: str, told: str) -> None:
    machine = sim()
    with pytest.raises(ConfigError, match=r"process=on") as caught:
        machine.add(kind, options, slot=3)
    assert told in str(caught.value)
    machine.close()


def test_orders_are_refused_with_the_reason(image: Path) -> None:
    with sim() as machine:
        machine.add("virtio-blk", f"{image},process=on", slot=3)
        devices = Devices(machine.bus, None, {})  # type: ignore[arg-type]
        bdf = Bdf(slot=3)
        for order in (
            lambda: devices.set_link(bdf, True),
            lambda: devices.set_limits(bdf, "iops=1"),
            lambda: devices.insert_medium(bdf, "x"),
            lambda: devices.command_driver(bdf, "x"),
        ):
            with pytest.raises(ConfigError, match=r"virtio-blk-3:0: is in a process of its own .*takes no orders"):
                order()


@pytest.mark.parametrize(("choice", "loaded"), [(None, False), (Selection(only=frozenset({"rng"})), True)])
def test_process_loads_the_plugins_that_its_machine_does(choice: Selection | None, loaded: bool) -> None:
    machine = sim()
    machine.plugins.choice = choice  # --no-plugins, --plugins rng
    machine.add("virtio-rnd", "process=on,restart=never", slot=3)
    try:
        if loaded:
            machine.start()
        else:
            with pytest.raises((ConfigError, HostError), match=r"no plugin provides it"):
                machine.start()
    finally:
        machine.close()
