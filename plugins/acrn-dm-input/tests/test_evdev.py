"""The host's devices, with the kernel's side played: requests answered by a table, events through a pipe."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_input
import pytest
from acrn_dm_input import codes
from acrn_dm_input.evdev import ABS, BITS, EVIOCGRAB, INPUT_EVENT, KEYS_NOW, Evdev, eviocg
from acrn_dm_input.updates import KEPT, Event

from acrn_dm import ConfigError, HostError
from acrn_dm.testing import SimMachine

KEY, LED = codes.EV_KEY, codes.EV_LED
A, B = 30, 48
SYN = (0, 0, 0)


class Kernel:
    """A keyboard with two keys and one axis, as the input layer describes it."""

    def __init__(self) -> None:
        self.pressed: set[int] = set()
        self.grabbed: list[int] = []
        self.busy = False

    def ioctl(self, fd: int, request: int, argument: bytes | int) -> bytes | int:
        if request == EVIOCGRAB:
            if self.busy:
                raise OSError(errno.EBUSY, "busy")
            self.grabbed.append(int(argument))  # type: ignore[arg-type]
            return 0
        number, size = request & 0xFF, request >> 16 & 0x3FFF
        assert request == eviocg(number, size)
        if number == 0x08:
            raise OSError(errno.ENOENT, "no serial number")
        answers = {
            0x02: struct.pack("4H", 3, 0x46D, 0xC31C, 0x110),
            0x06: b"Fine Keyboard\0",
            BITS + KEY: (1 << A | 1 << B).to_bytes(96, "little"),
            BITS + LED: b"\x03",
            BITS + codes.EV_ABS: b"\x02",
            ABS + 1: struct.pack("6i", 5, -1, 100, 2, 3, 4),
            KEYS_NOW: sum(1 << key for key in self.pressed).to_bytes(96, "little"),
        }
        return answers.get(number, b"").ljust(size, b"\0")[:size]


class Rig:
    """A machine with such a device; ``keyboard`` is the kernel's end of it."""

    def __init__(self, m: SimMachine, kernel: Kernel, path: Path, options: str = "") -> None:
        self.machine, self.kernel = m, kernel
        function = m.add("virtio-input", f"{path},{options}", slot=3)
        source = function.device.source  # type: ignore[attr-defined]
        assert isinstance(source, Evdev)
        source._node.ioctl = kernel.ioctl
        self.driver = m.driver(3)
        self.keyboard = os.open(path, os.O_WRONLY)
        self.driver.start()

    def give(self, buffers: int) -> None:
        for _ in range(buffers):
            self.driver.queue(0).send([], [8])
        self.driver.queue(0).kick()
        self.machine.settle()

    def happens(self, *events: tuple[int, int, int]) -> None:
        os.write(self.keyboard, b"".join(INPUT_EVENT.pack(1, 2, *event) for event in events))
        self.machine.settle()

    def seen(self) -> list[tuple[int, int, int]]:
        return [struct.unpack("<HHi", done.data) for done in self.driver.queue(0).completed()]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    os.mkfifo(tmp_path / "event0")
    with SimMachine(plugins=[acrn_dm_input]) as m:
        it = Rig(m, Kernel(), tmp_path / "event0")
        it.give(64)
        yield it
        os.close(it.keyboard)


def test_guest_is_told_what_the_kernel_says(rig: Rig) -> None:
    device = rig.machine.bus.functions[-1].device  # type: ignore[attr-defined]
    it = device.source.description
    assert (it.name, it.serial, it.ids) == ("Fine Keyboard", "", (3, 0x46D, 0xC31C, 0x110))
    assert set(it.events) == {KEY, LED, codes.EV_ABS}
    assert it.axes[1].pack() == struct.pack("<5i", -1, 100, 2, 3, 4)


def test_device_is_grabbed(rig: Rig) -> None:
    assert rig.kernel.grabbed == [1]


def test_device_is_left_to_the_host_by_grab_off(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "event0")
    with SimMachine(plugins=[acrn_dm_input]) as m:
        rig = Rig(m, Kernel(), tmp_path / "event0", "grab=off")
        assert rig.kernel.grabbed == []
        os.close(rig.keyboard)


def test_grabbed_by_another_is_an_error_with_a_hint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "event0")
    kernel = Kernel()
    kernel.busy = True
    with SimMachine(plugins=[acrn_dm_input]) as m, pytest.raises(HostError, match="grab=off shares it"):
        Rig(m, kernel, tmp_path / "event0")


def test_file_that_is_no_device_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with SimMachine(plugins=[acrn_dm_input]) as m:
        m.add("virtio-input", str(tmp_path / "file"), slot=3)
        with pytest.raises(HostError, match="is no event device"):
            m.start()


def test_check_names_a_missing_device() -> None:
    with SimMachine(plugins=[acrn_dm_input]) as m:
        lines = m.add("virtio-input", "/nosuch", slot=3).check()
    assert lines == ["virtio-input-3:0: evdev /nosuch can't be read and written"]


def test_two_guests_can_not_grab_one_device() -> None:
    claims = [
        Evdev("x", acrn_dm_input.InputConfig.from_string(text)).claims() for text in ("/dev/null", "/dev/null,grab=off")
    ]
    assert [len(claim) for claim in claims] == [1, 0]


def test_update_goes_to_the_guest_with_its_end(rig: Rig) -> None:
    rig.happens((KEY, A, 1))
    assert rig.seen() == []
    rig.happens(SYN)
    assert rig.seen() == [(KEY, A, 1), SYN]


def test_keys_that_were_released_in_a_gap_are_released(rig: Rig) -> None:
    """SYN_DROPPED: what the kernel has of the group is worthless, and A went up unseen."""
    rig.happens((KEY, A, 1), SYN, (KEY, B, 1), SYN)
    rig.seen()
    rig.kernel.pressed = {B}
    rig.happens((KEY, B, 0), (0, codes.SYN_DROPPED, 0), (KEY, B, 1), SYN)
    assert rig.seen() == [(KEY, A, 0), SYN]


def test_keys_whose_release_was_dropped_are_released_when_there_is_room(rig: Rig) -> None:
    rig.happens((KEY, A, 1), SYN)
    for _ in range((KEPT + 64) // 2):
        rig.happens((KEY, B, 2), SYN)
    rig.happens((KEY, A, 0), SYN)
    seen = rig.seen()
    for _ in range(20):
        rig.give(64 - rig.driver.queue(0).in_flight)
        seen += rig.seen()
    assert (KEY, A, 0) in seen


def test_endless_update_is_dropped_whole(rig: Rig) -> None:
    rig.happens(*[(codes.EV_MSC, 4, n) for n in range(100)], SYN)
    rig.happens((KEY, A, 1), SYN)
    assert rig.seen() == [(KEY, A, 1), SYN]


def test_led_goes_to_the_device(tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.touch()
    source = Evdev("x", acrn_dm_input.InputConfig.from_string(str(path)))
    source._node.fd = os.open(path, os.O_RDWR)
    source.status(Event(LED, 1, 1))
    source.status(Event(KEY, A, 1))  # a guest that types on its own keyboard
    source.close()
    sent = [event for _, _, *event in INPUT_EVENT.iter_unpack(path.read_bytes())]
    assert sent == [[LED, 1, 1], [0, 0, 0]]


def test_device_that_is_pulled_out_releases_its_keys(rig: Rig) -> None:
    rig.happens((KEY, A, 1), SYN)
    rig.seen()
    source = rig.machine.bus.functions[-1].device.source  # type: ignore[attr-defined]
    ours, source._node.fd = source._node.fd, os.open("/dev/null", os.O_RDONLY)  # reads as ended
    source._readable()
    source._loop.remove(ours)
    os.close(ours)
    assert rig.seen() == [(KEY, A, 0), SYN]


def test_events_while_nobody_drives_it_are_lost(rig: Rig) -> None:
    rig.driver.reset()
    rig.happens((KEY, A, 1), SYN)
    rig.driver.start()
    rig.give(4)
    assert rig.seen() == []


def test_serial_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError):
        acrn_dm_input.InputConfig.from_string("/dev/input/event0,a=b")
