"""Devices that say they can't be reset."""

import struct
from pathlib import Path

import pytest

from acrn_dm.testing import SimMachine
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.fake_server import INFO, RESET, FakeServer
from tests.devices.vfio_user.hostile_answers import says

SLOT = 6
IS_PCI = 2


def test_device_without_a_reset_is_left_as_it_is_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = {INFO: says(struct.pack("<IIII", 16, IS_PCI, 9, 5))}
    with FakeServer(tmp_path / "s", answers) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        machine.function(SLOT).bar_write(0, 0, 4, 7)
        assert "vfio-user-6:0 can't be reset" in caplog.text
        machine.function(SLOT).enable_msix()
        machine.reset()
        function = machine.function(SLOT)
        assert function.bar_read(0, 0, 4) == 7
        assert not function.msix_enabled
        assert not server.payloads(RESET)
        server.interrupt(0)
        eventually(machine, lambda: function.interrupt_status)
        assert machine.failures == []
