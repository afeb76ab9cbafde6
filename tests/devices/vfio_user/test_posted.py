"""Messages that nobody waits for: servers that answer them all the same, and answers that are too many."""

from pathlib import Path

import pytest

from acrn_dm.testing import SimMachine
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.fake_server import HEADER, REPLY, SET_IRQS, WRITE, FakeServer, Request

SLOT = 6


def talkative(server: FakeServer, request: Request) -> None:
    """What was asked for is done, and answered in any case (as the crate vfio_user does)."""
    server.good(Request(request.ident, request.command, 0, request.payload, request.fds))


@pytest.mark.parametrize("looks", [1, 40], ids=["read at the end", "read in between"])
def test_server_that_answers_what_is_posted_stays(looks: int, tmp_path: Path) -> None:
    answers = {WRITE: talkative, SET_IRQS: talkative}
    with FakeServer(tmp_path / "s", answers) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        function = machine.function(SLOT)
        for number in range(120):
            function.bar_write(0, 0, 4, number)
            if number % (120 // looks) == 0:
                assert function.bar_read(0, 0, 4) == number
            if number % 7 == 0:
                machine.settle()
        for _ in range(3):
            server.interrupt(0)
            eventually(machine, lambda: function.interrupt_status != 0)
            assert function.bar_read(0, 0, 4) == 119
        machine.settle()
        assert machine.failures == []


def test_answer_more_than_was_posted_is_one_too_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FakeServer(tmp_path / "s") as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        function = machine.function(SLOT)
        function.bar_write(0, 0, 4, 1)
        for ident in (0x7000, 0x7001):
            server.send(HEADER.pack(ident, WRITE, 16, REPLY, 0))
        eventually(machine, lambda: bool(machine.failures))
        assert "answered unasked" in caplog.text
