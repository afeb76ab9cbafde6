"""The next process in the place of one that died: a guest that boots finds it, if it is the same device."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing import SimMachine
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.remote_rig import SLOT, exported

LIVENESS, RAISE = 0x04, 0x60
RAM, BUFFER = 0x30_0000, 0x4_0000
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[SimMachine]:
    """A machine whose card has died, after its driver had switched messages on."""
    with SimMachine() as it:
        with exported("edu", tmp_path / "s"):
            it.add("vfio-user", f"socket={tmp_path / 's'}", slot=SLOT)
            function = it.function(SLOT)
            function.enable_msi()
            function.bar_write(0, LIVENESS, 4, 5)
        eventually(it, lambda: bool(it.failures))
        assert function.read(0, 4) == 0xFFFF_FFFF
        yield it


def test_guest_that_boots_finds_the_next_process(machine: SimMachine, tmp_path: Path) -> None:
    with exported("edu", tmp_path / "s"):
        with pytest.raises(LookupError):
            machine.function(SLOT)  # the guest that runs has lost it
        machine.reset()
        function = machine.function(SLOT)
        assert function.read(0, 4) == 0x11E8_1234
        function.bar_write(0, RAISE, 4, 1)
        routes = {slot: gsi for slot, _, gsi in machine.bus.prt()}
        eventually(machine, lambda: machine.vm.line(routes[SLOT]))
        function.enable_msi()
        function.bar_write(0, RAISE, 4, 2)
        eventually(machine, lambda: machine.interrupts[function.msi_data] == 1)
        machine.memory.write(RAM, b"memory")
        for offset, value in ((SOURCE, RAM), (DESTINATION, BUFFER), (COUNT, 6), (COMMAND, 1)):
            function.bar_write(0, offset, 8, value)
        eventually(machine, lambda: not function.bar_read(0, COMMAND, 4) & 1)
        for offset, value in ((SOURCE, BUFFER), (DESTINATION, RAM + 100), (COMMAND, 3)):
            function.bar_write(0, offset, 8, value)
        eventually(machine, lambda: machine.memory.read(RAM + 100, 6) == b"memory")


def test_another_device_is_none(machine: SimMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with exported("virtio-rnd", tmp_path / "s"):
        machine.reset()
        with pytest.raises(LookupError):
            machine.function(SLOT)
    assert "it is another device now" in caplog.text


def test_reboot_without_a_next_process_goes_on_without_it(
    machine: SimMachine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.reset()
    with pytest.raises(LookupError):
        machine.function(SLOT)
    assert "vfio-user-6:0: connecting to" in caplog.text
