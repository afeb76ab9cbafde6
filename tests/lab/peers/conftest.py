"""The newer QEMU for tests whose devices are served by vfio-user."""

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from lab.qemu.newer import newer_qemu, version


@pytest.fixture(scope="session")
def qemu() -> list[str]:
    """The words that start a QEMU with a client of vfio-user, fetched on first use."""
    try:
        found = newer_qemu()
        assert tuple(map(int, version(found).split(".")[:2])) >= (10, 1)
    except HarnessUnavailable as error:
        pytest.skip(str(error))
    return found.argv
