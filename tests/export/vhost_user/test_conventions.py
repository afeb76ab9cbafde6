"""The programs for management software and the files by which it finds them: each says what the program is, and that
program offers it.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import Request
from tests.backends.user.user_rig import Daemon
from tests.docs.page_runner import ROOT, lines_for
from tests.export.vhost_user.export_rig import Client

PAGE = ROOT / "docs" / "how-to" / "exporting" / "discovery.md"
FILES = sorted([*ROOT.glob("share/qemu/vhost-user/*"), *ROOT.glob("plugins/*/share/*.json")])
# docs/interop/vhost-user.json, VHostUserBackendType, and the features of those types that have some
TYPES = {"9p", "balloon", "block", "caif", "console", "crypto", "gpu", "input", "net", "rng", "rpmsg", "rproc-serial"}
TYPES |= {"scsi", "vsock", "fs"}
FEATURES = {"block": {"read-only", "blk-file"}, "input": {"evdev-path", "no-grab"}}
RUN = "import sys; sys.argv = sys.argv[1:]; from acrn_dm.export.vhost_user.conventions import main; sys.exit(main())"
RO = 1 << 5
SECTOR = 512


def program(name: str, *words: str) -> list[str]:
    """The installed script of that name."""
    return [sys.executable, "-c", RUN, f"/usr/bin/{name}", *words]


def run(name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(program(name, *words), capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def served(name: str, folder: Path, *words: str) -> Iterator[Client]:
    """A client of the program, which ends with 0 when it is asked to."""
    path = folder / "socket"
    daemon = Daemon(program(name, f"--socket-path={path}", *words), path, folder / "log")
    daemon.start()
    try:
        client = Client.connect(path)
        client.socket.settimeout(30)
        with contextlib.closing(client):
            yield client
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 0
        assert not path.exists()
    finally:
        daemon.kill()


def offered(client: Client) -> int:
    answer = client.ask(Request.GET_FEATURES)
    assert answer is not None
    return int.from_bytes(answer, "little")


def test_there_is_a_file_for_each_kind_that_has_a_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    made = {name for name, place in scripts.items() if place == "acrn_dm.export.vhost_user.conventions:main"}
    assert {Path(json.loads(file.read_text())["binary"]).name for file in FILES} == made


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_says_what_its_program_is(file: Path) -> None:
    told = json.loads(file.read_text())
    assert re.fullmatch(r"[0-9]{2}-acrn-dm-\w+\.json", file.name)
    assert set(told) == {"description", "type", "binary", "tags"}
    assert told["type"] in TYPES
    assert all(isinstance(tag, str) for tag in told["tags"])
    assert Path(told["binary"]).is_absolute()
    result = run(Path(told["binary"]).name, "--socket-path=/nowhere", "--print-capabilities", "--no-such-word")
    assert (result.returncode, result.stderr) == (0, "")
    capabilities = json.loads(result.stdout)
    assert capabilities["type"] == told["type"]
    assert set(capabilities.get("features", ())) == FEATURES.get(told["type"], set())
    exported = [sys.executable, "-m", "acrn_dm.export.cli", *told["tags"][0].split()[1:], "--print-capabilities"]
    same = subprocess.run(exported, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(same.stdout) == {"type": told["type"]}


@pytest.mark.parametrize("words", [(), ("--read-only",)])
def test_disk_is_the_file_and_read_only_if_told_so(words: tuple[str, ...], tmp_path: Path) -> None:
    image = tmp_path / "a,b.img"  # a path, whatever our own options would make of it
    image.write_bytes(bytes(7 * SECTOR))
    with served("acrn-dm-vhost-user-block", tmp_path, f"--blk-file={image}", *words) as client:
        assert bool(offered(client) & RO) is bool(words)
        answer = client.ask(Request.GET_CONFIG, struct.pack("<III8x", 0, 8, 0))
        assert answer is not None
        assert int.from_bytes(answer[12:], "little") == 7


@pytest.mark.parametrize(("name", "queues"), [("console", 4), ("rng", 1)])
def test_kind_that_needs_no_words_is_served(name: str, queues: int, tmp_path: Path) -> None:
    with served(f"acrn-dm-vhost-user-{name}", tmp_path) as client:
        assert client.queues() == queues


def test_socket_may_be_handed_over(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    argv = program("acrn-dm-vhost-user-rng", f"--fd={theirs.fileno()}")
    with ours, subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ours.sendall(bytes((1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)))  # GET_FEATURES
        assert len(ours.recv(100)) == 20
        ours.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("name", "words", "code", "said"),
    [
        ("block", (), 64, "--blk-file"),
        ("block", ("--blk-file=/no/such/image",), 78, "/no/such/image"),
        ("block", ("--blk-file",), 64, "expected one argument"),
        ("input", (), 64, "--evdev-path"),
        ("input", ("--evdev-path=/no/such/event", "--no-grab"), 78, "/no/such/event"),
        ("rng", ("--blk-file=/x",), 64, "--blk-file"),
        ("net", (), 78, "acrn-dm-vhost-user-block, "),
    ],
)
def test_what_can_not_be_served_is_refused_in_one_line(
    name: str, words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    result = run(f"acrn-dm-vhost-user-{name}", f"--socket-path={tmp_path / 's'}", *words)
    assert result.returncode == code
    assert result.stderr.startswith(f"acrn-dm-vhost-user-{name}: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_line_of_the_page_puts_the_files_where_they_are_looked_for(tmp_path: Path) -> None:
    (line,) = lines_for(PAGE.read_text(), "tests/export/vhost_user/test_conventions.py")
    source, there = tmp_path / "share" / "qemu" / "vhost-user", tmp_path / "etc"
    source.mkdir(parents=True)
    there.mkdir()
    for file in FILES:
        shutil.copy(file, source)
    script = line.replace("/etc/qemu/vhost-user", str(there)).replace("/opt/acrn", str(tmp_path))
    subprocess.run(["sh", "-euc", script], check=True, timeout=30)
    found = {file: json.loads(file.read_text())["binary"] for file in there.iterdir()}
    assert sorted(file.name for file in found) == sorted(file.name for file in FILES)
    assert {os.path.dirname(binary) for binary in found.values()} == {str(tmp_path / "bin")}
