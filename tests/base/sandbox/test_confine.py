"""acrn_dm.base.sandbox.confine: what a process in a sandbox can't do any more, as the kernel says."""

import json
import os
import signal
import socket
import textwrap
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.sandbox import confine, landlock
from tests.base import two_threads
from tests.base.sandbox.sandbox_rig import needs_all, needs_landlock, outcome, outcomes, run

KILLED = f"signal {int(signal.SIGSYS)}"

FLAGRANT = {
    "exec": "os.execv('/bin/true', ['true'])",
    "ptrace": "call(101, 16, os.getppid(), 0, 0)",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, None)",
    "unshare": "call(272, 0)",
    "bpf": "call(321, 0, None, 0)",
    "kexec": "call(246, 0, 0, None, 0)",
    "module": "call(313, -1, b'', 0)",
    "setuid": "os.setuid(os.getuid())",
    "process_vm_readv": "call(310, os.getpid(), None, 0, None, 0, 0)",
}
REFUSED = {
    "fork": "os.fork() or os._exit(0)",
    "kill of the parent": "os.kill(os.getppid(), 0)",
    "another's thread": "call(234, os.getppid(), os.getppid(), 0)",
    "inet socket": "socket.socket(socket.AF_INET)",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "datagram pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "io_uring": "call(425, 1, bytes(120))",
    "limits": "call(160, 4, bytes(16))",
    "chmod": "os.chmod('/dev/null', 0o666)",
    "write": "os.open('/dev/null', os.O_WRONLY)",
    "terminal injection": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
}
ALLOWED = {
    "thread": "threading.Thread(target=int).start()",
    "pipe": "os.write(os.pipe()[1], b'x')",
    "memfd": "os.ftruncate(os.memfd_create('x'), 4096)",
    "stream pair": "socket.socketpair()",
    "signal to itself": "os.kill(os.getpid(), 0)",
    "module": "__import__('xml.sax.handler')",
    "module in C": "__import__('_testbuffer')",
    "urandom": "open('/dev/urandom', 'rb').read(4)",
    "its own state": "open('/proc/self/status').read()",
    "limit": "__import__('resource').getrlimit(7)",
    "eventfd signalled by the kernel": "eventfd._by_kernel()",
    "name": "Path('/etc/passwd').exists()",
}


@needs_all
@pytest.mark.parametrize("mode", ["on", "strict"])
def test_what_data_planes_do_is_allowed(mode: str) -> None:
    prepared = "from acrn_dm.base.events import eventfd"
    assert outcomes(mode, ALLOWED, prepared=prepared) == dict.fromkeys(ALLOWED, "ok")


@needs_all
@pytest.mark.parametrize("mode", ["on", "strict"])
def test_what_they_do_not_is_refused(mode: str) -> None:
    assert outcomes(mode, REFUSED) == dict.fromkeys(REFUSED, "EPERM")


@needs_all
def test_what_is_flagrant_is_refused() -> None:
    assert outcomes("on", FLAGRANT) == dict.fromkeys(FLAGRANT, "EPERM")


@needs_all
@pytest.mark.parametrize("name", ["exec", "ptrace", "mount"])
def test_what_is_flagrant_ends_a_strict_one(name: str) -> None:
    assert outcome("strict", FLAGRANT[name]) == KILLED


def test_what_is_tried_works_without() -> None:
    """Or the refusals above would show nothing."""
    left_out = {"terminal injection", "another's thread"}
    tried = {name: text for name, text in REFUSED.items() if name not in left_out}
    found = outcomes("off", tried)
    assert {name for name, said in found.items() if said != "ok"} <= {"packet socket", "io_uring", "chmod"}


@needs_landlock
def test_files_of_others_are_out_of_reach(tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"x")
    tried = {"read": f"open({str(other)!r}, 'rb')", "list": f"os.listdir({str(tmp_path)!r})"}
    assert outcomes("off", tried) == {"read": "ok", "list": "ok"}
    assert outcomes("on", tried) == {"read": "EACCES", "list": "EACCES"}


@needs_landlock
@pytest.mark.parametrize("how", ["reads", "writes"])
def test_named_node_is_opened_and_takes_the_requests_that_are_named_and_no_others(how: str) -> None:
    """Which Landlock knows of since Linux 6.10."""
    number = 0x80045430  # TIOCGPTN
    node = f"os.open('/dev/ptmx', {'os.O_RDWR' if how == 'writes' else 'os.O_RDONLY'})"
    tried = {
        "named": f"__import__('fcntl').ioctl({node}, {number}, bytes(4))",
        "other": f"__import__('fcntl').ioctl({node}, 0x40045431, bytes(4))",
    }
    needs = f"{how}=[Path('/dev/ptmx')], ioctls=[{number}]"
    assert outcomes("strict", tried, needs) == {"named": "ok", "other": "EPERM"}
    assert outcomes("strict", {"named": tried["named"]}, f"ioctls=[{number}]")["named"] != "ok"


@needs_landlock
def test_named_files_are_in_reach(tmp_path: Path) -> None:
    read, folder, other = tmp_path / "read", tmp_path / "folder", tmp_path / "other"
    read.write_bytes(b"x")
    other.write_bytes(b"x")
    folder.mkdir()
    tried = {
        "read": f"open({str(read)!r}, 'rb')",
        "write it": f"open({str(read)!r}, 'r+b')",
        "make": f"open({str(folder / 'new')!r}, 'wb')",
        "remove": f"os.unlink({str(folder / 'new')!r})",
        "make beside": f"open({str(tmp_path / 'new')!r}, 'wb')",
        "other": f"open({str(other)!r}, 'rb')",
    }
    found = outcomes("strict", tried, f"reads=[Path({str(read)!r})], writes=[Path({str(folder)!r})]")
    assert found == {
        "read": "ok",
        "write it": "EACCES",
        "make": "ok",
        "remove": "ok",
        "make beside": "EACCES",
        "other": "EACCES",
    }


@needs_landlock
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_folders_of_modules_that_this_user_can_t_reach_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    prepared = f"""
    sys.path += [{str(tmp_path / "locked" / "modules")!r}, {str(tmp_path / "none")!r}]
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    """
    done = run("strict", "print(said(lambda: open('/etc/passwd')))", "", prepared)
    assert done.stdout.strip() == "EACCES", done.stderr


@needs_landlock
def test_needed_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("on", "", f"reads=[Path({str(tmp_path / 'none')!r})]")
    assert done.returncode == 1
    assert f"HostError: sandbox=on: {tmp_path / 'none'}: No such file or directory (ENOENT)" in done.stderr


@needs_all
def test_groups_allow_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        tried = {
            "unix": f"socket.socket(socket.AF_UNIX).connect({str(path)!r})",
            "inet": "socket.socket(socket.AF_INET)",
            "accept": "given.accept()",
            "io_uring": "call(425, 1, bytes(120))",
        }
        given = "given = socket.socket(socket.AF_UNIX); given.bind(''); given.listen(); given.setblocking(False)"
        found = outcomes("on", tried, "groups=['connect']", given)
        assert found == {"unix": "ok", "inet": "EPERM", "accept": "EPERM", "io_uring": "EPERM"}
        assert outcomes("on", tried, "groups=['accept']", given)["accept"] == "EAGAIN"
    assert outcomes("strict", tried, "groups=['io_uring']", given)["io_uring"] == "EPERM"
    # Of whoever has none the kernel takes it away, too: whether the call is let through shows by another errno.
    assert outcomes("on", {"io_uring": "call(425, 0, bytes(120))"}, "groups=['io_uring']")["io_uring"] == "EINVAL"


@needs_all
@pytest.mark.skipif(landlock.version() < landlock.PORTS_FROM, reason="this kernel's Landlock knows no ports")
def test_tcp_port_is_the_named_one_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        tried = {
            str(server.getsockname()[1]): f"socket.socket().connect(('127.0.0.1', {server.getsockname()[1]}))"
            for server in (one, other)
        }
        named, second = tried
        found = outcomes("on", tried | {"udp": "socket.socket(type=socket.SOCK_DGRAM)"}, f"tcp_ports=[{named}]")
    assert found == {named: "ok", second: "EACCES", "udp": "EPERM"}


@needs_all
def test_threads_that_run_already_are_in_it_too() -> None:
    """Asleep in the kernel, busy, or waiting for Python's lock."""
    prepared = f"""
    found = {{}}

    def look(name):
        words = status("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")
        found[name] = [word for line in words for word in line] + [said(lambda: open("/etc/passwd"))]
    {textwrap.indent(two_threads.BEGIN, "    ")}
    """
    done = run("on", two_threads.END + "print(json.dumps(found))", "", prepared)
    assert done.returncode == 0, done.stderr
    none = "0" * 16
    bound = (
        none
        if os.geteuid() == 0
        else next(
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
        )
    )
    expected = [none, none, bound, "1", "2", "EACCES"]
    assert json.loads(done.stdout) == dict.fromkeys(("asleep", "busy", "main"), expected)


@needs_all
def test_process_leaves_no_core_and_is_not_attached_to() -> None:
    body = "import resource; print(libc.prctl(3), resource.getrlimit(resource.RLIMIT_CORE))"
    assert run("on", body).stdout.strip() == "0 (0, 0)"


@needs_all
def test_errors_name_the_sandbox() -> None:
    body = """
    from acrn_dm.base.errors import HostError
    try:
        socket.socket()
    except OSError as e:
        print(HostError.from_os("calling", e))
    print(HostError.from_os("reading", OSError(errno.EIO, "")))
    """
    assert run("on", body).stdout.splitlines() == [
        "calling: Operation not permitted (EPERM); sandbox=on may be why",
        "reading: Input/output error (EIO)",
    ]


def test_kernel_without_landlock_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert [line[:30] for line in confine.lacking()] == ["this kernel has no Landlock (C"]
    with pytest.raises(HostError, match="sandbox=strict: this kernel has no Landlock"):
        confine.confine("strict", confine.Needs(), "a device")


def test_on_goes_on_without_landlock_and_says_so() -> None:
    prepared = """
    import logging
    from acrn_dm.base.sandbox import landlock
    logging.basicConfig(format="%(message)s")
    landlock.version = lambda: 0
    """
    done = run("on", "print(said(lambda: open('/etc/passwd')), said(lambda: socket.socket()))", "", prepared)
    assert done.stdout.strip() == "ok EPERM"
    (line,) = done.stderr.splitlines()
    assert line.startswith("test: sandbox=on does without: this kernel has no Landlock")
