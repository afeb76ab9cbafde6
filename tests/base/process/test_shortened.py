"""acrn_dm.base.process._shortened: memory that another process takes away costs its contents, and not this process."""

import contextlib
import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.process import _shortened

ROOT = Path(__file__).resolve().parents[3]
SIZE = 16 * mmap.PAGESIZE
HUGE = 2 << 20
BEGIN = (
    "import mmap, os\n"
    "from acrn_dm.base.process import _shortened\n"
    "file, told = os.memfd_create('other'), os.eventfd(0, os.EFD_NONBLOCK)\n"
    f"os.ftruncate(file, {SIZE})\n"
    f"memory, other = mmap.mmap(file, {SIZE}), mmap.mmap(file, {SIZE})\n"
    "slot = _shortened.watch(memory, told)\n"
)


@contextlib.contextmanager
def watched(fd: int, size: int) -> Iterator[tuple[mmap.mmap, int]]:
    """A mapping of *size* bytes of a file, and the eventfd that tells of it."""
    told = os.eventfd(0, os.EFD_NONBLOCK)
    os.ftruncate(fd, size)
    with mmap.mmap(fd, size) as memory:
        slot = _shortened.watch(memory, told)
        try:
            yield memory, told
        finally:
            _shortened.unwatch(slot)
    os.close(told)
    os.close(fd)


def ends_with(program: str) -> int:
    """The status of a Python that runs *program*, which leaves no core file."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_CORE, {(0, resource.RLIM_INFINITY)})\n"
    return subprocess.run([sys.executable, "-c", limit + program], cwd=ROOT, timeout=60, check=False).returncode


@pytest.mark.parametrize("left", [0, mmap.PAGESIZE, 3 * mmap.PAGESIZE + 5])
def test_what_has_gone_is_zeros_and_the_owner_is_told(left: int) -> None:
    file = os.memfd_create("other")
    with watched(file, SIZE) as (memory, told):
        memory[:] = b"x" * SIZE
        os.ftruncate(file, left)
        assert memory[SIZE - 10 : SIZE] == bytes(10)
        assert os.eventfd_read(told) == 1
        memory[SIZE // 2] = 7
        assert memory[SIZE // 2] == 7
        with pytest.raises(BlockingIOError):
            os.eventfd_read(told)


def test_what_nobody_has_touched_is_not_told() -> None:
    file = os.memfd_create("other")
    with watched(file, SIZE) as (memory, told):
        os.ftruncate(file, mmap.PAGESIZE)
        assert memory[0] == 0
        with pytest.raises(BlockingIOError):
            os.eventfd_read(told)


def test_huge_pages_are_replaced_whole() -> None:
    try:
        file = os.memfd_create("other", os.MFD_HUGETLB)
        os.ftruncate(file, HUGE)
        with mmap.mmap(file, HUGE) as probe:
            probe[0] = 1
    except OSError as e:
        pytest.skip(f"no huge pages here: {e}")
    with watched(file, HUGE) as (memory, told):
        os.ftruncate(file, 0)
        assert memory[HUGE - 1] == 0
        assert os.eventfd_read(told) == 1


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("os.ftruncate(file, 0); print(memory[5], other[5])", -signal.SIGBUS),  # its neighbour's of the same file
        ("_shortened.unwatch(slot); os.ftruncate(file, 0); memory[5]", -signal.SIGBUS),
        (
            "os.kill(os.getppid(), 0); import subprocess; subprocess.run(['kill', '-BUS', str(os.getpid())])",
            -signal.SIGBUS,
        ),
        ("os.ftruncate(file, 0); os._exit(memory[5] + other[:0].count(b'') - 1)", 0),
    ],
    ids=["not watched", "no longer watched", "sent by another process", "watched"],
)
def test_bus_error_of_something_else_ends_the_process_as_ever(program: str, status: int) -> None:
    assert ends_with(BEGIN + program) == status


@pytest.mark.process
def test_handler_above_that_gives_terminals_back_and_raises_it_again_is_survived() -> None:
    rescue = "import pty\nfrom acrn_dm.devices.terminal import _rescue\nassert _rescue.keep(pty.openpty()[1]) >= 0\n"
    assert ends_with(BEGIN + rescue + "os.ftruncate(file, 0); os._exit(memory[5] + os.eventfd_read(told) - 1)") == 0


CLIENT = "tests/base/process/test_shortened.py::test_what_has_gone_is_zeros_and_the_owner_is_told"
DISK = (
    "tests/devices/virtio_blk/native/shortcut/test_shortcut.py"
    "::test_mapped_file_that_is_cut_fails_requests_and_ends_nothing"
)


@pytest.mark.process
@pytest.mark.parametrize("order", [(CLIENT, DISK, CLIENT), (DISK, CLIENT, DISK)], ids=["client first", "disk first"])
def test_each_bus_error_finds_its_handler_whichever_was_first(order: tuple[str, ...]) -> None:
    """The other is of a disk whose image, which is mapped, is cut: it leaves a copy by a jump."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler"]  # which takes handlers away that came after it
    runs = f"import pytest\nfor it in {order}: assert pytest.main([*{options}, it]) == 0\n"
    assert ends_with(runs) == 0


def test_more_than_there_is_room_for_are_refused_and_room_is_used_again() -> None:
    slots: list[int] = []
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:

        def fill() -> None:
            while True:
                slots.append(_shortened.watch(memory, -1))

        with pytest.raises(OverflowError, match="mappings are watched"):
            fill()
        for slot in slots:
            _shortened.unwatch(slot)
        assert _shortened.watch(memory, -1) == slots[0]
        _shortened.unwatch(slots[0])


@pytest.mark.parametrize("slot", [-1, 1 << 20])
def test_slot_that_there_is_not_is_an_error(slot: int) -> None:
    with pytest.raises(IndexError):
        _shortened.unwatch(slot)
