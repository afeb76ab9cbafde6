"""acrn_dm.base.process.core_dumps: guest memory is in core dumps for those who ask for it only, in both programs."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from acrn_dm.export.vhost_user.client_memory import ClientMemory
from acrn_dm.memory.guest_memory import MIB, GuestMemory, MemoryRange
from tests.devices.terminal.session import acrn_dm
from tests.export.vhost_user.export_rig import Client, console_daemon


def left_out(pid: int, name: str) -> list[bool]:
    """For each mapping of process *pid* with *name* whether the kernel leaves it out of core dumps."""
    found: list[bool] = []
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = name in line
        elif ours and line.startswith("VmFlags:"):
            found.append("dd" in line.split())
    return found


@pytest.mark.parametrize("dumped", [False, True])
def test_each_region_of_guest_memory_is_left_out_unless_it_is_wanted(dumped: bool) -> None:
    ranges = [MemoryRange(gpa=0, size=2 * MIB), MemoryRange(gpa=1 << 32, size=2 * MIB)]
    memory = GuestMemory.allocate(ranges, dumped=dumped)
    assert left_out(os.getpid(), "memfd:guest-ram") == [not dumped] * 2
    memory.clear()
    assert left_out(os.getpid(), "memfd:guest-ram") == [not dumped] * 2
    memory.close()


@pytest.mark.parametrize("dumped", [False, True])
def test_each_region_of_a_clients_memory_is_left_out_unless_it_is_wanted(dumped: bool) -> None:
    memory = ClientMemory(dumped=dumped)
    for number, call in enumerate(("replace", "add")):
        fd = os.memfd_create("client-ram")
        os.ftruncate(fd, MIB)
        fields = (number * MIB, MIB, number * MIB, 0)
        if call == "replace":
            memory.replace([fields], [fd])
        else:
            memory.add(fields, fd)
    assert left_out(os.getpid(), "memfd:client-ram") == [not dumped] * 2
    memory.clear()


@pytest.mark.process
@pytest.mark.parametrize(("args", "expected"), [([], True), (["--dump-guest-core", "off"], True),
                                                (["--dump-guest-core=on"], False)], ids=str)  # fmt: skip
def test_machine_leaves_its_memory_out_unless_told(tmp_path: Path, args: list[str], expected: bool) -> None:
    argv = acrn_dm(tmp_path, "-l", "com1,stdio", *args)
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"<up>\r\n"
        assert left_out(process.pid, "memfd:guest-ram") == [expected]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(("args", "expected"), [([], True), (["--dump-guest-core=on"], False)], ids=str)
def test_export_leaves_its_clients_memory_out_unless_told(tmp_path: Path, args: list[str], expected: bool) -> None:
    daemon = console_daemon(tmp_path)
    daemon.argv = [*daemon.argv, *args]
    daemon.start()
    client = Client.connect(daemon.socket)
    try:
        client.negotiate()
        client.share_memory()
        assert daemon.process is not None
        assert left_out(daemon.process.pid, "memfd:ram") == [expected]
    finally:
        client.close()
        daemon.kill()
