"""The driver over a real file, without a guest, and once below a disk."""

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acrn_dm_blk_faults import driver
from acrn_dm_blk_faults.driver import FaultyDisk, Hit

from acrn_dm import ConfigError
from acrn_dm.testing import BlockBench, SimMachine, VirtioDriver

FOUR = b"".join(bytes([n]) * 512 for n in range(1, 5))
OK, IOERR = b"\0", b"\1"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(64 * 512))
    return path


def bench(image: Path, *rules: str, more: str = "") -> BlockBench:
    text = "".join(f",rule={rule}" for rule in rules)
    return BlockBench(f"faults,over={image}{text}{more}", plugins=[driver])


def test_without_rules_it_is_the_disk_below(image: Path) -> None:
    with bench(image) as disk:
        assert disk.size == 64 * 512
        disk.write(512, FOUR)
        disk.write_zeroes(1024, 512)
        disk.flush()
        assert disk.read(0, 3 * 512) == bytes(512) + FOUR[:512] + bytes(512)
    assert image.read_bytes()[512:1024] == FOUR[:512]


def test_error_is_the_rule_s_and_nothing_is_stored(image: Path) -> None:
    with bench(image, "error=ENOSPC:on=write:sectors=8-15") as disk:
        disk.write(0, FOUR)
        with pytest.raises(OSError, match="rule error=ENOSPC") as failed:
            disk.write(7 * 512, FOUR)
        assert failed.value.errno == errno.ENOSPC
        assert disk.read(7 * 512, 2048) == bytes(2048)


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("read", lambda disk: disk.read(0, 512)),
        ("write", lambda disk: disk.write(0, FOUR)),
        ("flush", lambda disk: disk.flush()),
        ("discard", lambda disk: disk.discard(0, 512)),
        ("zeroes", lambda disk: disk.write_zeroes(0, 512)),
    ],
)
def test_each_operation_can_fail(image: Path, operation: str, call: object) -> None:
    with bench(image, f"error=EIO:on={operation}") as disk:
        with pytest.raises(OSError, match="rule error=EIO"):
            call(disk)  # type: ignore[operator]
        assert isinstance(disk.driver, FaultyDisk)
        assert disk.driver.hits == [Hit(operation, 0, f"error=EIO:on={operation}")]


def test_torn_write_has_stored_its_beginning(image: Path) -> None:
    with bench(image, "torn=1024") as disk:
        with pytest.raises(OSError, match="rule torn"):
            disk.write(0, FOUR, pieces=[700, 900])
        assert disk.read(0, 2048) == FOUR[:1024] + bytes(1024)


def test_silent_torn_write_is_a_lie(image: Path) -> None:
    with bench(image, "torn=0:error=none") as disk:
        disk.write(0, FOUR)
        assert disk.read(0, 2048) == bytes(2048)


def test_delay_is_as_long_as_the_rule_says_and_the_data_is_right(image: Path) -> None:
    with bench(image, "delay=30:on=read") as disk:
        disk.write(0, FOUR)
        began = time.monotonic()
        assert disk.read(0, 2048) == FOUR
        assert time.monotonic() - began >= 0.03


def test_late_error_is_one(image: Path) -> None:
    with bench(image, "delay=1:error=EIO") as disk, pytest.raises(OSError, match="rule delay"):
        disk.read(0, 512)


def test_first_rule_that_fits_decides(image: Path) -> None:
    with bench(image, "error=ENOSPC:nth=2", "error=EIO") as disk:
        for number in (errno.EIO, errno.ENOSPC, errno.EIO):
            with pytest.raises(OSError) as failed:
                disk.read(0, 512)
            assert failed.value.errno == number


def test_faults_stand_over_any_driver(image: Path) -> None:
    text = f"faults,over=driver=faults,,over={image},,rule=error=EIO:on=read,rule=error=EIO:on=write"
    with BlockBench(text, plugins=[driver]) as disk:
        for call in (lambda: disk.read(0, 512), lambda: disk.write(0, FOUR)):
            with pytest.raises(OSError, match="rule error=EIO"):
                call()
        disk.flush()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("faults", "option 'over' is required"),
        ("faults,over=IMAGE,rule=error=EWHAT", "expected the name of an errno"),
        ("faults,over=IMAGE,rules=error=EIO", "did you mean 'rule'"),
        ("faults,over=driver=nothing", "no block driver 'nothing'"),
        ("faults,over=/no/such/image", "does not exist"),
    ],
)
def test_wrong_options_are_told(image: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BlockBench(text.replace("IMAGE", str(image)), plugins=[driver])


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with SimMachine(plugins=[driver]) as made:
        yield made


def started(machine: SimMachine, text: str) -> VirtioDriver:
    machine.add("virtio-blk", text, slot=3)
    driver = machine.driver(3)
    driver.start()
    return driver


def read(driver: VirtioDriver) -> bytes:
    return driver.queue(0).transfer([bytes(16)], [512, 1]).data[-1:]


def test_guest_sees_an_error_until_the_rules_are_taken_away(image: Path, machine: SimMachine) -> None:
    driver = started(machine, f"driver=faults,over={image},rule=error=EIO:on=read")
    assert read(driver) == IOERR
    machine.command_driver(3, "clear")
    assert read(driver) == OK
    machine.command_driver(3, "add error=EIO:on=read:times=1")
    assert [read(driver), read(driver)] == [IOERR, OK]


@pytest.mark.parametrize("text", ["", "heal", "add", "add error=EWHAT", "clear all"])
def test_command_that_means_nothing_is_refused(image: Path, machine: SimMachine, text: str) -> None:
    started(machine, f"driver=faults,over={image}")
    with pytest.raises(ConfigError, match="virtio-blk-3:0: driver faults"):
        machine.command_driver(3, text)


def test_request_that_never_ends_keeps_neither_the_others_nor_a_reset(image: Path, machine: SimMachine) -> None:
    driver = started(machine, f"driver=faults,over={image},rule=delay=forever:on=read:times=20")
    for _ in range(20):
        driver.queue(0).send([bytes(16)], [512, 1])
    driver.queue(0).send([b"\4" + bytes(15)], [1])
    driver.queue(0).kick()
    deadline = time.monotonic() + 30
    done = []
    while not done and time.monotonic() < deadline:
        machine.io_loop("io").step(0.1)
        done = driver.queue(0).completed()
    assert [completion.data for completion in done] == [OK]
    driver.reset()
    driver.start()
    assert read(driver) == OK


def test_what_waits_goes_on_when_the_rules_are_taken_away(image: Path, machine: SimMachine) -> None:
    driver = started(machine, f"driver=faults,over={image},rule=delay=forever:on=read")
    driver.queue(0).send([bytes(16)], [512, 1])
    driver.queue(0).kick()
    faults = machine.bus.functions[0].context.driver.driver  # type: ignore[union-attr]
    assert isinstance(faults, FaultyDisk)
    deadline = time.monotonic() + 30
    while not faults.hits and time.monotonic() < deadline:
        machine.io_loop("io").step(0.01)
    machine.command_driver(3, "clear")
    machine.settle()
    assert [completion.data[-1:] for completion in driver.queue(0).completed()] == [OK]
