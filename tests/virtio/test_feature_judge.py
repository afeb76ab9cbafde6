"""Devices that refuse drivers without a feature that they can't do without (row i2c.feat.reject)."""

from acrn_dm.virtio.features import VERSION_1
from tests.virtio.parts import SLOT, Echo, machine_with

NEEDED = 1 << 5
NEEDS_RESET = 64


class Particular(Echo):
    """Wants bit 5."""

    def refusal(self, features: int) -> str | None:
        return None if features & NEEDED else "bit 5 is not accepted"


class Broken(Echo):
    """Fails when it is asked."""

    def refusal(self, features: int) -> str | None:
        raise RuntimeError("bug")


def test_driver_without_the_feature_does_not_get_features_ok() -> None:
    with machine_with(Particular) as machine:
        driver = machine.driver(SLOT)
        assert driver.negotiate(VERSION_1) == 0
        assert driver.negotiate(VERSION_1 | NEEDED) == VERSION_1 | NEEDED


def test_device_is_not_asked_about_what_is_wrong_for_every_device() -> None:
    with machine_with(Broken) as machine:
        driver = machine.driver(SLOT)
        assert driver.negotiate(VERSION_1 | 1 << 20) == 0
        assert not driver.status & NEEDS_RESET


def test_device_that_fails_when_asked_lets_the_write_return_and_refuses() -> None:
    with machine_with(Broken) as machine:
        driver = machine.driver(SLOT)
        assert driver.negotiate(VERSION_1) == 0
        assert [str(error) for _, error in machine.failures] == ["bug"]
