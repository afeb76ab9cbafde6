"""The newer QEMU for tests whose devices are served by vfio-user, and for those of this host's with ``QEMU=newer``."""

import os

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.served.newer import newer_qemu, version


@pytest.fixture(scope="session")
def qemu() -> list[str]:
    """The words that start a QEMU with a client of vfio-user, fetched on first use."""
    try:
        found = newer_qemu()
        assert tuple(map(int, version(found).split(".")[:2])) >= (10, 1)
    except HarnessUnavailable as error:
        pytest.skip(str(error))
    return found.argv


@pytest.fixture(scope="session")
def either_qemu(request: pytest.FixtureRequest) -> list[str]:
    """The words that start this host's QEMU, which are none; or the newer one's with ``QEMU=newer``."""
    newer: list[str] = request.getfixturevalue("qemu") if os.environ.get("QEMU") == "newer" else []
    return newer
