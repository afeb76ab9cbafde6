"""Fixtures of the tests with back-ends of our own making."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.events import eventfd
from tests.backends.user.user_rig import open_descriptors


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def no_descriptor_is_left() -> Iterator[None]:
    eventfd._choose()  # what is opened once for the process
    before = open_descriptors()
    yield
    assert open_descriptors() <= before  # fewer, where a thread of the test before this one was still at its end
