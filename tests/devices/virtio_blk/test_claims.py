"""Images are claimed: against other disks of the machine, other machines, QEMU's programs, and the host's mounts."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.medium import open_image
from tests.devices.virtio_blk.blk_rig import config, disk, image
from tests.devices.virtio_blk.test_insert import insert

WAIT_S = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return image(tmp_path, 2048)


@contextmanager
def ours(text: str) -> Iterator[None]:
    opened = open_image(config(text))
    try:
        yield
    finally:
        opened.close()


def refusal(text: str) -> str:
    """Why the image is refused, when it is looked at and when it is opened: the same."""
    looked = medium.problem(config(text))
    assert looked is not None
    with pytest.raises(ConfigError) as caught:
        open_image(config(text))
    assert str(caught.value) == f"virtio-blk: {looked}"
    return looked


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("{}", "{}", True),
        ("{}", "{},ro", True),
        ("{},ro", "{}", True),
        ("{},ro", "{},ro", False),
        ("{},share=on", "{},share=on", False),
        ("{}", "{},share=on", True),
        ("{},share=on", "{}", True),
        ("{}", "{},ro,share=on", False),
        ("{},range=0/8", "{}", True),
        ("{}", "{},range=0/8", True),
        ("{},range=0/8", "{},range=8/8", False),
        ("{},range=0/8", "{},range=7/8", True),
        ("{},range=0/8", "{},range=0/1,sectorsize=4096", True),
        ("{},range=0/8", "{},range=1/1,sectorsize=4096", False),
        ("{},nocache", "{},nocache", True),
    ],
)
def test_second_user_of_an_image(path: Path, first: str, second: str, refused: bool) -> None:
    with ours(first.format(path)):
        if refused:
            assert refusal(second.format(path)).startswith(f"image {path} is in use by this process; ")
        else:
            assert medium.problem(config(second.format(path))) is None
            with ours(second.format(path)):
                pass


@pytest.mark.parametrize("how", ["symlink", "hard link", "other name"])
def test_other_name_of_an_image_is_the_same_image(path: Path, how: str) -> None:
    other = path.parent / "other.img"
    if how == "symlink":
        other.symlink_to(path)
    elif how == "hard link":
        os.link(path, other)
    else:
        other = path.parent / ".." / path.parent.name / path.name
    with ours(str(path)):
        assert "is in use by this process" in refusal(str(other))


def test_inserted_medium_is_claimed_and_a_refused_one_leaves_the_slot_empty(path: Path) -> None:
    with disk("nodisk") as d:
        with ours(str(path)), pytest.raises(ConfigError, match="in use by this process"):
            insert(d, str(path))
        assert d.device.image is None
        insert(d, str(path))
        assert "in use by this process" in refusal(str(path))


def test_closed_disk_gives_its_image_free(path: Path) -> None:
    with disk(str(path)):
        assert "in use" in refusal(str(path))
    assert medium.problem(config(str(path))) is None


# QEMU's programs.


QMP, ANSWER = b'{"execute": "qmp_capabilities"}\n', b'"return"'


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program} (Debian packages qemu-utils, qemu-system-x86)")


@contextmanager
def running(*command: str, ready: bytes) -> Iterator["subprocess.Popen[bytes]"]:
    """The program, from the moment it has said *ready*; one with a monitor has its disks by its first answer."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if ready == ANSWER:
                process.stdin.write(QMP)
                process.stdin.flush()
            said = b""
            while ready not in said:
                byte = process.stdout.read(1)
                assert byte, said.decode()
                said += byte
            yield process
        finally:
            process.kill()


def qemu_io(path: Path, *, ro: bool) -> list[str]:
    return ["qemu-io", *(["-r"] if ro else []), "-f", "raw", str(path)]


def storage_daemon(path: Path, *, ro: bool) -> list[str]:
    node = f"driver=file,node-name=f,filename={path},read-only={'on' if ro else 'off'}"
    export = f"type=vhost-user-blk,id=e,node-name=f,writable={'off' if ro else 'on'}"
    socket = f"addr.type=unix,addr.path={path.parent}/daemon.sock"
    return ["qemu-storage-daemon", "--blockdev", node, "--export", f"{export},{socket}", "--chardev", "stdio,id=c",
            "--monitor", "chardev=c"]  # fmt: skip


def qemu_system(path: Path, *, ro: bool) -> list[str]:
    drive = f"driver=raw,node-name=d,file.driver=file,file.filename={path},read-only={'on' if ro else 'off'}"
    return ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-machine", "q35", "-qmp", "stdio",
            "-blockdev", drive, "-device", "virtio-blk-pci,drive=d"]  # fmt: skip


Program = Callable[..., list[str]]
PROGRAMS = [(qemu_io, b"qemu-io> "), (storage_daemon, ANSWER), (qemu_system, ANSWER)]
EACH = pytest.mark.parametrize(("program", "ready"), PROGRAMS, ids=["qemu-io", "storage daemon", "qemu-system"])


@pytest.mark.process
@EACH
def test_image_that_qemu_writes_is_refused_and_qemu_is_named(path: Path, program: Program, ready: bytes) -> None:
    command = program(path, ro=False)
    need(command[0])
    with running(*command, ready=ready) as process:
        for text in (f"{path}", f"{path},ro", f"{path},range=0/8"):
            assert f"image {path} is in use by process {process.pid} ({command[0]}); " in refusal(text)


@pytest.mark.process
@EACH
def test_image_that_we_have_is_refused_by_qemu(path: Path, program: Program, ready: bytes) -> None:
    need(program(path, ro=False)[0])
    for text, ro in ((f"{path}", False), (f"{path},ro", False), (f"{path},range=0/8", False)):
        with ours(text):
            command = program(path, ro=ro)
            done = subprocess.run(command, input=b"", capture_output=True, timeout=WAIT_S, check=False)
            assert done.returncode != 0
            assert b'Failed to get "write" lock' in done.stderr + done.stdout


@pytest.mark.process
def test_image_that_we_write_is_not_read_by_a_qemu_machine(path: Path) -> None:
    """Its tools lock nothing when they read: that is their policy."""
    command = qemu_system(path, ro=True)
    need(command[0])
    with ours(str(path)):
        done = subprocess.run(command, input=b"", capture_output=True, timeout=WAIT_S, check=False)
        assert b'Failed to get shared "write" lock' in done.stderr


@pytest.mark.process
@EACH
def test_readers_may_be_many(path: Path, program: Program, ready: bytes) -> None:
    command = program(path, ro=True)
    need(command[0])
    with running(*command, ready=ready):
        assert medium.problem(config(f"{path},ro")) is None
        with ours(f"{path},ro"):
            pass
    with ours(f"{path},ro"), running(*command, ready=ready):
        pass


# Block devices.


@pytest.fixture
def loop(path: Path) -> Iterator[str]:
    made = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.process
def test_block_device_is_claimed_like_a_file(loop: str) -> None:
    for first, second in (
        (loop, loop),
        (loop, f"{loop},ro"),
        (f"{loop},ro", loop),
        (f"{loop},range=0/8", f"{loop},ro"),
    ):
        with ours(first):
            assert f"image {loop} is in use by this process" in refusal(second)
    with ours(f"{loop},ro"), ours(f"{loop},ro"):
        pass
    with ours(f"{loop},share=on"), ours(f"{loop},share=on"):
        pass


@pytest.mark.process
def test_block_device_that_the_host_has_mounted_is_refused_unless_ro(loop: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        exclusive = os.open(loop, os.O_RDWR | os.O_EXCL)  # what mount does
        stack.callback(os.close, exclusive)
        assert refusal(loop) == f"image {loop} is in use by the host: {medium.LINKED}"
        assert medium.problem(config(f"{loop},ro")) is None


@pytest.mark.process
def test_block_device_in_use_can_not_be_mounted(loop: str) -> None:
    with ours(loop), pytest.raises(OSError, match="busy"):
        os.close(os.open(loop, os.O_RDWR | os.O_EXCL))


@pytest.mark.process
def test_other_node_of_a_block_device_is_the_same_device(loop: str, tmp_path: Path) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, os.stat(loop).st_mode, os.stat(loop).st_rdev)
        os.close(os.open(node, os.O_RDONLY))
    except PermissionError:
        pytest.skip("no device nodes here")
    assert medium.claims(config(loop))[0].key == medium.claims(config(str(node)))[0].key
    with ours(loop), pytest.raises(ConfigError, match="in use by the host"):
        open_image(config(str(node)))
