"""acrn_dm.base.sockets.command_lines: who sends, what is carried out, what comes back."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets.command_lines import MAX_CLIENTS, MAX_LINE, MAX_SCRIPT, TURN, CommandLines


class Device:
    """Commands that came, and an answer or an error for them."""

    def __init__(self) -> None:
        self.loop = IoLoop("test")
        self.heard: list[str] = []
        self.lines = CommandLines("device", self.execute)

    def execute(self, line: str) -> str:
        self.heard.append(line)
        if line == "bad":
            raise ValueError("no such thing")
        return line.removeprefix("say ") if line.startswith("say ") else ""


@pytest.fixture
def device() -> Iterator[Device]:
    it = Device()
    yield it
    it.lines.close()
    it.loop.close()


@pytest.fixture
def client(device: Device, tmp_path: Path) -> Iterator[socket.socket]:
    device.lines.open(device.loop, tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as it:
        it.connect(str(tmp_path / "control"))
        it.setblocking(False)
        yield it


def said(device: Device, client: socket.socket, text: str) -> str:
    client.send(text.encode())
    device.loop.run_until_idle()
    return client.recv(1 << 16).decode()


def test_each_line_is_carried_out_and_answered(device: Device, client: socket.socket) -> None:
    assert said(device, client, "one\nsay yes\n") == "ok\nyes\n"
    assert device.heard == ["one", "say yes"]


def test_error_goes_back_to_who_caused_it(device: Device, client: socket.socket) -> None:
    assert said(device, client, "bad\ngood\n") == "error: no such thing\nok\n"


def test_empty_lines_and_comments_say_nothing(device: Device, client: socket.socket) -> None:
    assert said(device, client, "\n  # key a\nx\n") == "ok\n"
    assert device.heard == ["x"]


def test_line_cut_in_two_is_one(device: Device, client: socket.socket) -> None:
    client.send(b"on")
    device.loop.run_until_idle()
    assert said(device, client, "e\n") == "ok\n"
    assert device.heard == ["one"]


def test_endless_line_ends_the_conversation(device: Device, client: socket.socket) -> None:
    client.send(b"x" * (MAX_LINE + 1))
    device.loop.run_until_idle()
    assert client.recv(100).startswith(b"error: a line has at most")
    assert client.recv(100) == b""


def test_wait_holds_back_its_sender_only(device: Device, client: socket.socket, tmp_path: Path) -> None:
    client.send(b"wait 3000\nlater\n")
    device.loop.run_until_idle()
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(tmp_path / "control"))
        assert said(device, other, "now\n") == "ok\n"
    assert device.heard == ["now"]


def test_wait_that_is_over_lets_the_rest_through(device: Device, client: socket.socket) -> None:
    client.send(b"wait 0.001\nlater\n")
    while device.heard != ["later"]:
        device.loop.step(1)
    assert client.recv(100) == b"ok\nok\n"


def test_sender_that_hung_up_while_it_waits_costs_no_turn(device: Device, client: socket.socket) -> None:
    client.send(b"wait 3000\n")
    device.loop.run_until_idle()
    client.close()
    assert device.loop.step() == 0


@pytest.mark.parametrize("text", ["-1", "nan", "1e9", "", "x"])
def test_wait_of_no_length_is_refused(device: Device, client: socket.socket, text: str) -> None:
    assert said(device, client, f"wait {text}\n").startswith("error: ")


def test_many_lines_leave_others_their_turn(device: Device, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("line\n" * (9 * TURN))
    device.lines.play(device.loop, tmp_path / "script")
    device.loop.step()
    assert len(device.heard) < 9 * TURN
    device.loop.run_until_idle()
    assert len(device.heard) == 9 * TURN


def test_client_that_left_early_is_carried_out_to_the_end(device: Device, client: socket.socket) -> None:
    client.send(b"one\ntwo\nthree\n")
    client.close()
    device.loop.run_until_idle()
    assert device.heard == ["one", "two", "three"]


def test_more_clients_than_are_served_wait_their_turn(device: Device, client: socket.socket, tmp_path: Path) -> None:
    others = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS)]
    for other in others:
        other.connect(str(tmp_path / "control"))
        other.send(b"x\n")
    device.loop.run_until_idle()
    assert len(device.heard) == MAX_CLIENTS - 1
    client.close()
    device.loop.run_until_idle()
    assert len(device.heard) == MAX_CLIENTS
    for other in others:
        other.close()


def test_fifo_is_read_and_outlives_its_writers(device: Device, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    device.lines.open(device.loop, tmp_path / "fifo")
    for text in ("one\n", "two\n"):
        (tmp_path / "fifo").write_text(text)
        device.loop.run_until_idle()
    assert device.heard == ["one", "two"]


def test_error_of_a_script_is_logged_with_its_line(
    device: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "script").write_text("one\n\nbad\n")
    device.lines.play(device.loop, tmp_path / "script")
    device.loop.run_until_idle()
    assert "script: line 3: no such thing" in caplog.text


def test_script_without_end_is_refused(device: Device, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(bytes(MAX_SCRIPT + 1))
    with pytest.raises(ConfigError, match="script"):
        device.lines.play(device.loop, tmp_path / "script")


def test_nothing_is_carried_out_after_close(device: Device, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("one\n")
    device.lines.play(device.loop, tmp_path / "script")
    device.lines.close()
    device.loop.run_until_idle()
    assert device.heard == []


def test_socket_goes_with_the_device(device: Device, client: socket.socket, tmp_path: Path) -> None:
    device.lines.close()
    assert not (tmp_path / "control").exists()


def test_check_names_what_can_not_be_used(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines = device.lines.check(script=tmp_path / "none", control=tmp_path / "file")
    assert [line.partition(": ")[2] for line in lines] == [
        f"script {tmp_path}/none can't be read",
        f"control {tmp_path}/file: is there already, and is no socket",
    ]


def test_control_can_be_had_once(device: Device, tmp_path: Path) -> None:
    assert device.lines.claims(tmp_path / "c")[0].key == device.lines.claims(tmp_path / "." / "c")[0].key
    assert device.lines.claims(None) == []
