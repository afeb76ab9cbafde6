"""The write-cache mode: the whole table of option, features, driver's writes and phases; then through the registers."""

import itertools
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk.cache_mode import CacheMode
from acrn_dm.testing.driver import ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, VERSION_1
from tests.devices.virtio_blk.blk_rig import F_CONFIG_WCE, F_FLUSH, F_MQ, OK, WRITEBACK_AT, Disk, disk, image

WCE, FLUSH, BOTH, NEITHER = F_CONFIG_WCE, F_FLUSH, F_CONFIG_WCE | F_FLUSH, 0
WRITES = (None, False, True)  # what the driver writes, if anything

# (legacy, features) -> what writeback is when the driver may begin. "option": as the user said; "seen": as it was
# before FEATURES_OK or DRIVER_OK, the legacy driver's own write included.
AT_START = {
    (False, BOTH): "option",
    (False, WCE): "off",  # blk.wce.init0
    (False, FLUSH): "option",
    (False, NEITHER): "off",  # blk.stable.before_complete.noflush
    (True, BOTH): "seen",  # blk.legacy.wce_status, blk.legacy.wce_features
    (True, WCE): "seen",
    (True, FLUSH): "option",
    (True, NEITHER): "off",
}


def run(mode: CacheMode, legacy: bool, features: int, early: bool | None) -> bool:
    """From reset to where the driver begins; returns what it saw before."""
    mode.reset()
    if early is not None:
        mode.write(early, legacy=legacy)
    seen = mode.writeback
    if not legacy:
        mode.features_ok(features)
    mode.driver_ok(features)
    return seen


TABLE = list(itertools.product((False, True), AT_START, WRITES))


@pytest.mark.parametrize(("option", "driver", "early"), TABLE)
def test_what_the_mode_is_when_the_driver_begins(option: bool, driver: tuple[bool, int], early: bool | None) -> None:
    legacy, features = driver
    mode = CacheMode(option)
    seen = run(mode, legacy, features, early)
    assert seen == (option if early is None or not legacy else early)
    assert mode.writeback == {"option": option, "off": False, "seen": seen}[AT_START[driver]]


@pytest.mark.parametrize(("option", "driver", "early"), TABLE)
@pytest.mark.parametrize("late", [False, True])
def test_what_a_driver_that_runs_can_change(
    option: bool, driver: tuple[bool, int], early: bool | None, late: bool
) -> None:
    legacy, features = driver
    mode = CacheMode(option)
    run(mode, legacy, features, early)
    before = mode.writeback
    mode.write(late, legacy=legacy)
    assert mode.writeback == (late if features & WCE else before)


@pytest.mark.parametrize(("option", "driver", "early"), TABLE)
@pytest.mark.parametrize("late", WRITES)
def test_pause_changes_nothing_and_reset_everything(
    option: bool, driver: tuple[bool, int], early: bool | None, late: bool | None
) -> None:
    legacy, features = driver
    mode = CacheMode(option)
    run(mode, legacy, features, early)
    if late is not None:
        mode.write(late, legacy=legacy)
    before = mode.writeback
    mode.driver_ok(features)  # it goes on
    assert mode.writeback == before
    mode.reset()
    assert mode.writeback == option


@pytest.mark.parametrize("option", [False, True])
@pytest.mark.parametrize("features", [NEITHER, FLUSH, WCE, BOTH])
def test_features_ok_alone_decides_for_a_modern_driver(option: bool, features: int) -> None:
    mode = CacheMode(option)
    mode.features_ok(features)
    at_features_ok = mode.writeback
    mode.driver_ok(features)
    assert mode.writeback == at_features_ok


# Through the registers


def writeback(d: Disk) -> int:
    return d.driver.read_config(WRITEBACK_AT, 1)[0]


def choose(d: Disk, value: int) -> None:
    d.driver.registers.write_config(WRITEBACK_AT, 1, value)


def test_blk_wce_init0_from_features_ok_on(tmp_path: Path) -> None:
    """Row blk.wce.init0: CONFIG_WCE without FLUSH; it reads 0 before DRIVER_OK already."""
    with disk(f"{image(tmp_path)},writeback", start=False) as d:
        driver = d.driver
        driver.status = ACKNOWLEDGE | DRIVER
        driver.registers.accept(VERSION_1 | F_CONFIG_WCE)
        assert writeback(d) == 1, "as the option says"
        driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
        assert writeback(d) == 0


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("features", [F_CONFIG_WCE, F_CONFIG_WCE | F_FLUSH])
def test_blk_legacy_wce_status_does_not_change_the_mode(tmp_path: Path, value: int, features: int) -> None:
    """Row blk.legacy.wce_status: what a legacy driver with CONFIG_WCE wrote stays over every status bit."""
    with disk(f"{image(tmp_path)},{'writethru' if value else 'writeback'}", legacy=True, start=False) as d:
        d.driver.reset()
        choose(d, value)
        d.driver.registers.accept(features)
        seen = []
        for status in (ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | DRIVER_OK):
            d.driver.status = status
            seen.append(writeback(d))
        assert seen == [value] * 3


@pytest.mark.parametrize("features", [0, F_CONFIG_WCE, F_FLUSH, F_CONFIG_WCE | F_FLUSH, F_MQ])
def test_blk_legacy_wce_features_do_not_change_the_mode(tmp_path: Path, features: int) -> None:
    """Row blk.legacy.wce_features."""
    with disk(f"{image(tmp_path)},writeback", legacy=True, start=False) as d:
        d.driver.reset()
        d.driver.status = ACKNOWLEDGE | DRIVER
        d.driver.registers.accept(features)
        assert writeback(d) == 1


@pytest.mark.parametrize(("features", "expected"), [(0, 0), (F_FLUSH, 1)])
def test_blk_legacy_wce_status_driver_ok_without_config_wce_may(tmp_path: Path, features: int, expected: int) -> None:
    """Row blk.legacy.wce_status, its exception."""
    with disk(f"{image(tmp_path)},writeback", legacy=True, features=features) as d:
        assert writeback(d) == expected


def test_write_of_a_modern_driver_that_did_not_accept_it_is_ignored(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback", features=F_FLUSH) as d:
        choose(d, 0)
        assert writeback(d) == 1


@pytest.mark.parametrize("value", [1, 2, 0xFF])
def test_any_value_but_0_is_write_back(tmp_path: Path, value: int) -> None:
    with disk(str(image(tmp_path))) as d:
        choose(d, value)
        assert writeback(d) == 1


def generation(d: Disk) -> int:
    return d.driver.registers.read("config_generation")


@pytest.mark.parametrize("option", ["writethru", "writeback"])
def test_change_by_the_driver_is_a_new_generation(tmp_path: Path, option: str) -> None:
    with disk(f"{image(tmp_path)},{option}") as d:
        before = generation(d)
        choose(d, writeback(d))
        assert generation(d) == before, "nothing has changed"
        choose(d, 1 - writeback(d))
        assert generation(d) != before


def test_change_by_features_ok_is_a_new_generation(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback", start=False) as d:
        d.driver.status = ACKNOWLEDGE | DRIVER
        before = generation(d)
        assert writeback(d) == 1
        d.driver.registers.accept(VERSION_1 | F_CONFIG_WCE)
        d.driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
        assert generation(d) != before


@pytest.mark.parametrize(
    ("option", "features", "durable"),
    [
        ("writethru", BOTH, True),
        ("writeback", BOTH, False),
        ("writethru", FLUSH, True),
        ("writeback", FLUSH, False),
        ("writeback", NEITHER, True),
        ("writeback", WCE, True),
    ],
)
def test_blk_stable_before_complete_is_what_writeback_says(
    tmp_path: Path, option: str, features: int, durable: bool
) -> None:
    with disk(f"{image(tmp_path)},{option}", features=features) as d:
        assert writeback(d) == (not durable)
        assert d.write(0, bytes(512)) == OK
        assert d.device.image is not None
        assert d.device.image.trust.volatile == (not durable)


def test_inserted_medium_brings_its_mode_with_the_next_driver(tmp_path: Path) -> None:
    with disk("nodisk") as d:
        d.device.insert_medium(f"{image(tmp_path)},writeback")
        assert writeback(d) == 0
        d.driver.start()
        assert writeback(d) == 1
