"""One guest for all tests of this folder, of an acrn-dm in a strict sandbox."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest import Guests
from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.devices import confined_scene
from tests.lab.devices.packages_scene import DEVICES, MODULES, SOURCE, Scene, served
from tests.lab.stemmed import Stemmed

SANDBOX = ("--sandbox", "strict")
BOOT_S = 240.0  # with processes of three devices


@pytest.fixture(scope="package")
def scene(lab: OuterVm) -> Iterator[Scene]:
    if not lab.alive():
        lab.restart()
    with served(lab), confined_scene.prepared(lab), Guests(place=confined_scene.WithSite(Stemmed(lab))) as guests:
        source = guests.scratch / "source"
        source.write_bytes(SOURCE * 100_000)
        devices = [*DEVICES, f"virtio-rng,source={source}", *confined_scene.DEVICES.values()]
        with guests(
            *SANDBOX, "-m", "512M", devices=devices, modules=MODULES, append="quiet loglevel=4", timeout=BOOT_S
        ) as guest:
            yield Scene(lab, guest, devices)
