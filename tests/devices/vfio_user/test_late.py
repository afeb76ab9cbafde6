"""Processes that connect to us (``server=on``), that come late (``wait=``), or that are not there."""

import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.testing import SimMachine
from tests.devices.vfio_user.fake_server import FakeServer
from tests.patience import comes_true

SLOT = 6


@attrs.define(eq=False)
class CallingServer(FakeServer):
    """A server that connects to the client."""

    def listen(self) -> None:
        """It does not."""

    def accept(self) -> socket.socket:
        """The connection to the first who listens. Raises OSError after the end."""
        peer = socket.socket(socket.AF_UNIX)
        comes_true(lambda: self.over or not peer.connect_ex(str(self.path)), 20)
        if self.over:
            peer.close()
            raise OSError
        return peer


def test_process_connects_to_us(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with SimMachine() as machine:
        function = machine.add("vfio-user", f"socket={path},server=on", slot=SLOT)
        assert function.check() == []
        with CallingServer(path):
            assert machine.function(SLOT).read(0, 4) == 0x4321_1D0F
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_process_that_comes_late_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer(tmp_path / "s")

    def come() -> None:
        assert comes_true(lambda: "waits for the vfio-user server at" in caplog.text)
        server.__enter__()

    with SimMachine() as machine:
        function = machine.add("vfio-user", f"socket={tmp_path / 's'},wait=on", slot=SLOT)
        assert function.check() == []
        thread = threading.Thread(target=come)
        thread.start()
        assert machine.function(SLOT).read(0, 4) == 0x4321_1D0F
        thread.join()
    server.__exit__()


def absent(path: Path) -> None:
    """Nothing is there."""


def plain(path: Path) -> None:
    """A file."""
    path.write_text("")


def deserted(path: Path) -> None:
    """A socket at which nobody listens."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (absent, "no such file or directory; is the vfio-user process running?"),
        (plain, "is no socket"),
        (deserted, "is the vfio-user process running?"),
    ],
)
def test_process_that_is_not_there_is_said_before_the_start(
    there: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    there(tmp_path / "s")
    machine = SimMachine()
    (line,) = machine.add("vfio-user", f"socket={tmp_path / 's'}", slot=SLOT).check()
    assert words in line
    with pytest.raises(HostError, match="vfio-user-6:0: "):
        machine.start()
    machine.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "option 'socket' is required"),
        ("socket=/s,path=/t", "unknown option 'path'"),
        (f"socket=/{'x' * 107}", "at most 107 bytes"),
        ("socket=/s,wait=0", "expected on, off or 1 to 86400 seconds"),
        ("socket=/s,server=on,wait=off", "has to be waited for"),
        ("socket=/s,process=on", "no process of its own"),
        ("socket=/s,iothread", "no I/O threads"),
        ("socket=/s,strict=on", "no driver of one is checked"),
        ("socket=/s,backend=vhost-user", "it has no backend"),
    ],
)
def test_what_can_not_be_is_refused_in_words(text: str, words: str) -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match=words):
        machine.add("vfio-user", text, slot=SLOT)


def test_two_of_them_can_not_have_one_socket() -> None:
    with SimMachine() as machine:
        one = machine.add("vfio-user", "socket=/s", slot=SLOT)
        assert [claim.what for claim in one.claims()] == ["socket /s"]  # type: ignore[attr-defined]
