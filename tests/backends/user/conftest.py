"""Fixtures of the tests with back-ends of our own making."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends.user import backend as user
from acrn_dm.backends.user import link as user_link
from acrn_dm.base.events import eventfd
from tests.backends.user.machines import LIMIT_S
from tests.backends.user.user_rig import open_descriptors


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_link, "TIME_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(user, "TIME_LIMIT_S", LIMIT_S)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def no_descriptor_is_left() -> Iterator[None]:
    eventfd._choose()  # what is opened once for the process
    before = open_descriptors()
    yield
    assert open_descriptors() == before
