"""``--dry-run`` and the start refuse the same, with the same line and the same exit code."""

import os
import re
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from acrn_dm.cli import main
from acrn_dm.cli.grammar import Option
from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import HypervisorType
from acrn_dm.devices.terminal.line import open_terminal
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.medium import open_image
from acrn_dm.devices.virtio_console.backend import FileBackend
from acrn_dm.devices.virtio_console.config import ConsoleConfig
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.hypervisors.sim import plugin as sim
from acrn_dm.machine.machine import Machine, StopReason
from tests.boot.samples import make_bzimage, make_firmware
from tests.cli.fakes import NoOptions, plugin
from tests.devices.virtio_blk.blk_rig import config

USAGE, CONFIG = 64, 78


def brief() -> ModuleType:
    """A hypervisor whose guests power off as soon as they are started."""

    def started(machine: Machine) -> None:
        machine.power.request(StopReason.POWEROFF)

    kind = HypervisorType(name="brief", summary="for tests", probe=lambda: None, open=sim.open_vm, rank=1000)
    return plugin("brief", acrn_dm_hypervisor_types=lambda: [kind], acrn_dm_machine_started=started)


def make_manager(**arguments: Any) -> PluginManager:
    return make_plugin_manager(entry_points=False, extra=[brief()])


@attrs.frozen
class Both:
    """Runs a command line twice: as a dry run and as a start. The options that every machine needs are added."""

    folder: Path
    capsys: Any

    def dry(self, *args: str) -> tuple[int, list[str]]:
        """Exit code and the lines on stderr."""
        return self._run(*args, "--dry-run")

    def start(self, *args: str) -> tuple[int, list[str]]:
        return self._run(*args)

    def __call__(self, *args: str) -> tuple[int, list[str]]:
        """Of both, which are the same."""
        found = self.dry(*args)
        assert self.start(*args) == found
        return found

    def _run(self, *args: str) -> tuple[int, list[str]]:
        needed = ["-m", "128M", "-k", str(self.folder / "kernel"), "--manager-directory", str(self.folder / "mngr")]
        code = main([*needed, *args, "vm"], make_manager=make_manager)
        return code, self.capsys.readouterr().err.splitlines()


@pytest.fixture
def both(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernel").write_bytes(make_bzimage())
    (tmp_path / "a.img").write_bytes(bytes(8192))
    (tmp_path / "link.img").symlink_to("a.img")
    os.link("a.img", "hard.img")
    (tmp_path / "odd.img").write_bytes(bytes(1_000_001))
    (tmp_path / "empty.img").touch()
    (tmp_path / "text").write_bytes(b"hello\n")
    (tmp_path / "firmware").write_bytes(make_firmware(for_qemu=False))
    (tmp_path / "firmware2").write_bytes(bytes(8192))
    os.mkfifo("fifo")
    (tmp_path / "a.qcow2").write_bytes(b"QFI\xfb" + bytes(4092))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("left")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("alive")
        listener.listen()
        yield Both(tmp_path, capsys)


def test_machine_without_fault_passes_both(both: Both) -> None:
    assert both("-s", "3,virtio-blk,a.img") == (0, [])


LONG = "s" * 108
TOO_LONG = f"{LONG!r}: a socket's path has at most 107 bytes"
TWICE = "give ro to both, or share=on to those that keep their writes apart by themselves"
# Arguments, and the line that both say behind "acrn-dm: ", or its beginning.
REFUSED = [
    (["-s", "3,virtio-blk,nodisk,r0=1,foo,bar=baz"],
     "-s 3,virtio-blk,nodisk,r0=1,foo,bar=baz: virtio-blk: unknown option 'r0'; known: iops, iops_max, iops_max_l..."),
    (["-s", f"5,virtio-console,socket:a={LONG}"],
     f"-s 5,virtio-console,socket:a={LONG}: virtio-console: port a: {TOO_LONG}"),
    (["-s", f"5,virtio-console,socket:a={LONG}:client"],
     f"-s 5,virtio-console,socket:a={LONG}:client: virtio-console: port a: {TOO_LONG}"),
    (["-s", f"5,virtio-console,vhost-user={LONG}"],
     f"-s 5,virtio-console,vhost-user={LONG}: virtio-console: vhost_user {TOO_LONG}"),
    (["-s", f"3,virtio-blk,vhost-user={LONG}"],
     f"-s 3,virtio-blk,vhost-user={LONG}: virtio-blk: vhost_user {TOO_LONG}"),
    (["-s", f"4,virtio-net,vhost-user={LONG}"],
     f"-s 4,virtio-net,vhost-user={LONG}: virtio-net: vhost_user {TOO_LONG}"),
    (["-s", "5,virtio-console,tty:a=none"], "virtio-console-5:0: port a: terminal none does not exist"),
    (["-s", "5,virtio-console,tty:a=text"], "virtio-console-5:0: port a: text is not a terminal"),
    (["-s", "5,virtio-console,tty:a=/dev/null"], "virtio-console-5:0: port a: /dev/null is not a terminal"),
    (["-l", "com1,./none"], "-l com1: terminal ./none does not exist"),
    (["-l", "com1,./text"], "-l com1: ./text is not a terminal"),
    (["-l", "com1,/dev/null"], "-l com1: /dev/null is not a terminal"),
    (["-l", "com1,tcp:5999", "-l", "com2,tcp:5999"], "-l com2: port 5999 of 127.0.0.1 is used by -l com1 already"),
    (["-s", "5,virtio-console,file:a=none/x"], "virtio-console-5:0: port a: directory none does not exist"),
    (["-s", "5,virtio-console,file:a=/"], "virtio-console-5:0: port a: / is a directory, not a file"),
    (["-s", "5,virtio-console,file:a=fifo"], "virtio-console-5:0: port a: FIFO fifo has no reader"),
    (["-s", "5,virtio-console,file:a=out,file:b=./out"],
     "virtio-console-5:0: file out is used by virtio-console-5:0 already"),
    (["-s", "5,virtio-console,file:a=link.img", "-s", "3,virtio-blk,a.img"],
     "virtio-console-5:0: file link.img is used by virtio-blk-3:0, as image a.img, already"),
    (["-s", "5,virtio-console,socket:a=none/x"],
     "virtio-console-5:0: port a: directory none does not exist"),
    (["-s", "5,virtio-console,socket:a=text"],
     "virtio-console-5:0: port a: socket text: is there already, and is no socket"),
    (["-s", "5,virtio-console,socket:a=alive"],
     "virtio-console-5:0: port a: socket alive: somebody listens there already"),
    (["-s", "5,virtio-console,socket:a=text:client"], "virtio-console-5:0: port a: text is no socket"),
    (["-s", "5,virtio-console,socket:a=new", "-s", "6,virtio-console,socket:a=./new"],
     "virtio-console-6:0: socket new is used by virtio-console-5:0 already"),
    (["-s", "5,virtio-console,socket:a=new", "--cmd_monitor", "./new"],
     "--cmd_monitor: socket new is used by virtio-console-5:0 already"),
    (["-s", "3,virtio-blk,vhost-user=left"],
     "virtio-blk-3:0: backend vhost-user: connecting to left: Connection refused (ECONNREFUSED); "
     "is the vhost-user process running?"),
    (["-s", "7,vfio-user,socket=left"],
     "vfio-user-7:0: connecting to left: Connection refused (ECONNREFUSED); is the vfio-user process running?"),
    (["-s", "7,vfio-user,socket=alive,server=on"],
     "vfio-user-7:0: socket alive: somebody listens there already"),
    (["-s", "6,vfio-user,socket=alive", "-s", "7,vfio-user,socket=./alive"],
     "vfio-user-7:0: socket alive is used by vfio-user-6:0 already"),
    (["--hugepages", "on", "-m", "200G"], "--hugepages: 'on': ..."),
    (["--cmd_monitor", "none/x"], "--cmd_monitor: 'none/x': directory none does not exist"),
    (["--cmd_monitor", "text"], "--cmd_monitor: 'text': is there already, and is no socket"),
    (["--cmd_monitor", "alive"], "--cmd_monitor: 'alive': somebody listens there already"),
    (["-s", "3,virtio-blk,vhost-user=alive", "-s", "4,virtio-blk,vhost-user=./alive"],
     "virtio-blk-4:0: socket alive is used by virtio-blk-3:0 already"),
    (["-s", "3,virtio-blk,vhost-user=alive,server=on"],
     "virtio-blk-3:0: backend vhost-user: socket alive: somebody listens there already"),
    (["-s", "7,virtio-fs,socket=none/x,tag=t,server=on"],
     "virtio-fs-7:0: backend vhost-user: socket none/x: directory none does not exist"),
    (["-s", "7,virtio-fs,socket=text,tag=t,wait=on"],
     "virtio-fs-7:0: backend vhost-user: text is no socket"),
    (["-s", "6,vhost-user-device,id=41,queues=2,socket=alive", "-s", "7,virtio-fs,socket=./alive,tag=t"],
     "virtio-fs-7:0: socket alive is used by vhost-user-device-6:0 already"),
    (["-s", "6,vhost-user-device,id=1,queues=2,socket=s"],
     "-s 6,vhost-user-device,id=1,queues=2,socket=s: id=1: its control queue is served here, ..."),
    (["--ovmf", "w,firmware", "-s", "3,virtio-blk,firmware"],
     f"virtio-blk-3:0: image firmware is used by --ovmf, as file firmware, already; {TWICE}"),
    (["--ovmf", "w,code=firmware,vars=firmware2", "-s", "5,virtio-console,file:a=firmware2"],
     "virtio-console-5:0: file firmware2 is used by --ovmf already"),
    (["--ovmf", "text"], "--ovmf: 'text': no firmware image: 6 bytes, which is not a multiple of 4096"),
    (["-s", "3,virtio-blk,none.img"], "virtio-blk-3:0: image none.img does not exist"),
    (["-s", "3,virtio-blk,."], "virtio-blk-3:0: image . is neither a regular file nor a block device"),
    (["-s", "3,virtio-blk,empty.img"], "virtio-blk-3:0: image empty.img is empty"),
    (["-s", "3,virtio-blk,odd.img"],
     "virtio-blk-3:0: image odd.img has 1000001 bytes, which is not a multiple of 512; "
     "to extend it: truncate -s %512 odd.img"),
    (["-s", "3,virtio-blk,a.img,range=8/9"],
     "virtio-blk-3:0: range 8/9 ends behind image a.img, which has 16 blocks of 512 bytes"),
    (["-s", "3,virtio-blk,a.img,sectorsize=16384"],
     "virtio-blk-3:0: image a.img has 8192 bytes, which is not a multiple of 16384; "
     "to extend it: truncate -s %16384 a.img"),
    (["-s", "3,virtio-blk,a.img", "-s", "4,virtio-blk,a.img"],
     f"virtio-blk-4:0: image a.img is used by virtio-blk-3:0 already; {TWICE}"),
    (["-s", "3,virtio-blk,a.img", "-s", "4,virtio-blk,./link.img,ro"],
     f"virtio-blk-4:0: image link.img is used by virtio-blk-3:0, as image a.img, already; {TWICE}"),
    (["-s", "3,virtio-blk,hard.img", "-s", "4,virtio-blk,a.img,share=on"],
     f"virtio-blk-4:0: image a.img is used by virtio-blk-3:0, as image hard.img, already; {TWICE}"),
    (["-s", "3,virtio-blk,a.img,range=0/8", "-s", "4,virtio-blk,a.img"],
     f"virtio-blk-4:0: image a.img is used by virtio-blk-3:0 already; {TWICE}"),
    (["-s", "3,virtio-blk,a.img,range=0/8", "-s", "4,virtio-blk,a.img,range=7/2"],
     f"virtio-blk-4:0: image a.img is used by virtio-blk-3:0 already; {TWICE}"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "line"), REFUSED)
def test_same_line_and_exit_code_from_dry_run_and_start(both: Both, args: list[str], line: str) -> None:
    if "5,virtio-console,file:a=fifo" in args and os.geteuid() != 0:
        pytest.skip("only root sees who reads a FIFO")
    code, lines = both(*args)
    beginning = f"acrn-dm: {line}".removesuffix("...")
    shown = lines[0][: len(beginning)] if line.endswith("...") else lines[0]
    assert (code, len(lines), shown) == (CONFIG, 1, beginning)


@pytest.mark.parametrize(
    "args",
    [
        ["-s", "3,virtio-blk,a.img,ro", "-s", "4,virtio-blk,link.img,ro"],
        ["-s", "3,virtio-blk,a.img,share=on", "-s", "4,virtio-blk,hard.img,share=on"],
        ["-s", "3,virtio-blk,a.img,range=0/8", "-s", "4,virtio-blk,a.img,range=8/8"],
    ],
)
def test_both_accept(both: Both, args: list[str]) -> None:
    assert both(*args) == (0, [])


def test_log_level_that_means_nothing_is_a_malformed_command_line(both: Both) -> None:
    line = "--logger_setting: 'console,level=9': console's level '9' is not a decimal number from 1 to 6"
    assert both("--logger_setting", "console,level=9") == (USAGE, [f"acrn-dm: {line}"])


def test_socket_path_that_is_too_long_is_a_malformed_command_line(both: Both) -> None:
    assert both("--cmd_monitor", LONG) == (USAGE, [f"acrn-dm: --cmd_monitor: {TOO_LONG}"])


def test_path_of_107_bytes_is_a_sockets(both: Both) -> None:
    path = "s" * 107
    assert both("--cmd_monitor", path) == (0, [])
    assert both("-s", f"5,virtio-console,socket:a={path}") == (0, [])


def test_port_that_somebody_listens_on(both: Both) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = f"-l com1: listening on 127.0.0.1:{port}: Address already in use"
        assert both("-l", f"com1,tcp:{port}") == (CONFIG, [f"acrn-dm: {line}"])


@pytest.fixture
def terminal() -> Iterator[str]:
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_terminal_of_two_ports(both: Both, terminal: str) -> None:
    line = f"virtio-console-5:0: terminal {terminal} is used by -l com1 already"
    args = ("-l", f"com1,{terminal}", "-s", f"5,virtio-console,tty:a={terminal}")
    assert both(*args) == (CONFIG, [f"acrn-dm: {line}"])


def test_terminal_of_another_machine(both: Both, terminal: str) -> None:
    line = open_terminal(terminal, "other")
    try:
        for args, who in ((("-l", f"com1,{terminal}"), "-l com1"),
                          (("-s", f"5,virtio-console,tty:a={terminal}"), "virtio-console-5:0: port a")):  # fmt: skip
            said = f"acrn-dm: {who}: terminal {terminal} is in use by this process"
            assert both(*args) == (CONFIG, [said])
    finally:
        line.close()


def test_file_that_another_machine_writes(both: Both) -> None:
    backend = FileBackend("other", both.folder / "out")
    backend.open()
    try:
        line = "acrn-dm: virtio-console-5:0: port a: file out is in use by this process"
        assert both("-s", "5,virtio-console,file:a=out") == (CONFIG, [line])
    finally:
        backend.close()


@contextmanager
def a_process() -> Iterator["subprocess.Popen[bytes]"]:
    """One that runs its program already."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"!")
        assert other.stdout.read(1) == b"!"
        try:
            yield other
        finally:
            other.kill()


def test_machine_of_a_name_that_is_taken_runs_and_is_told_of(both: Both) -> None:
    """By a process of ours, so that there is one."""
    (both.folder / "mngr").mkdir()
    with a_process() as other, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"mngr/vm.monitor.{other.pid}.socket")
        listener.listen()
        line = f"process {other.pid} (cat) has a machine named vm: acrnctl finds that one"
        assert both() == (0, [f"acrn-dm: WARNING: {line}"])


def test_container_given_as_raw_is_told_of_and_used(both: Both) -> None:
    line = (
        "image a.qcow2 looks like qcow2 and is used as raw: the guest sees the container; make a raw one "
        "(qemu-img convert -f qcow2 -O raw a.qcow2 NEW), or let qemu-storage-daemon read it (vhost-user=SOCKET)"
    )
    assert both("-s", "3,virtio-blk,a.qcow2") == (0, [f"acrn-dm: WARNING: virtio-blk-3:0: {line}"])


def test_machine_that_needs_more_files_than_it_may_open(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acrn_dm.base.files.descriptors.limit", lambda: 200)
    consoles = [word for slot in range(3, 29) for word in ("-s", f"{slot},virtio-console,pty:a")]
    code, lines = both(*consoles)
    assert (code, len(lines)) == (CONFIG, 1)
    words = r"acrn-dm: the machine needs (\d+) file descriptors, and 200 is the limit; raise it \(ulimit -Hn \1, .*\)"
    assert re.fullmatch(words, lines[0])


def test_machine_without_guests_is_shown_but_not_started(both: Both, capsys: Any) -> None:
    assert both.dry("--hypervisor", "sim") == (0, [])
    line = "no guest runs in it (no vCPUs: a test in this process is the guest); it is for --dry-run and for tests"
    assert both.start("--hypervisor", "sim") == (CONFIG, [f"acrn-dm: --hypervisor: 'sim': {line}"])


@contextmanager
def image_in_use(path: Path) -> Iterator[None]:
    opened = open_image(config(str(path)))
    try:
        yield
    finally:
        opened.close()


def test_image_of_a_second_machine(both: Both) -> None:
    with image_in_use(both.folder / "a.img"):
        code, lines = both("-s", "3,virtio-blk,a.img")
    assert code == CONFIG
    assert lines == [
        "acrn-dm: virtio-blk-3:0: image a.img is in use by this process; "
        "ro on both sides, or share=on where something keeps the writes apart, allows that"
    ]


def test_soft_limit_of_open_files_is_raised_to_the_hard_one_for_a_start(both: Both) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
    try:
        assert both.dry() == (0, [])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1] // 2
        assert both.start() == (0, [])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# Whatever stands in an option: nothing, rubbish, a path to nowhere, to a folder, to a file that is something else.
VALUES = ("", "rubbish", "-1", "99999999999", "none/x", ".", "text", "/dev/null", LONG, "a=b,c=d", "\xff")
CHOSEN = [o for o in OPTIONS if o.metavar is not None and o.name not in ("config", "pci_slot", "lpc", "plugins")]


@pytest.mark.parametrize("option", CHOSEN, ids=lambda o: o.name)
def test_any_value_of_an_option_is_judged_alike(both: Both, option: Option) -> None:
    for value in VALUES:
        both(f"--{option.name}={value}")


DEVICES = {
    "virtio-blk": ("a.img", BlkConfig),
    "virtio-net": ("tap=none", NetConfig),
    "virtio-console": ("pty:a", ConsoleConfig),
    "hostbridge": ("", NoOptions),
}
WORDS = ("rubbish", "=", "on", "off", *(f"{{name}}={value}" for value in VALUES), "{name}")


@pytest.mark.stress
@pytest.mark.parametrize("kind", DEVICES)
def test_any_option_of_a_device_is_judged_alike(both: Both, kind: str) -> None:
    """A pseudo-terminal's path is told at the start only."""
    begin, config = DEVICES[kind]
    for name in ("unknown", *attrs.fields_dict(config)):
        for word in WORDS:
            text = word.format(name=name)
            for options in (f"{begin},{text}", text):
                args = ("-s", f"3,{kind},{options}")
                dry, start = both.dry(*args), both.start(*args)
                assert (start[0], [line for line in start[1] if "/dev/pts/" not in line]) == dry


@pytest.mark.stress
@pytest.mark.parametrize("kind", ["tty", "pty", "file", "socket", "stdio", "rubbish"])
def test_any_port_of_a_console_is_judged_alike(both: Both, kind: str) -> None:
    for value in VALUES:
        for text in (f"{kind}:a={value}", f"@{kind}:a={value}:client", f"{kind}:{value}", f"{kind}:a={value}:drop"):
            args = ("-s", f"3,virtio-console,{text}")
            dry, start = both.dry(*args), both.start(*args)
            assert (start[0], [line for line in start[1] if "/dev/pts/" not in line]) == dry


def test_any_backend_of_a_serial_port_is_judged_alike(both: Both) -> None:
    for value in (*VALUES, "stdio", "tcp:", "tcp:0", "tcp:x", "./text", "../none", "/", "./text,0x3f8,4"):
        for port in ("com1", "com5", "com6"):
            both("-l", f"{port},{value}")
