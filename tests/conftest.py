"""For every test: what ``main`` does to its process for good is not done to the one that runs the tests."""

import pytest

from acrn_dm.base import privileges


@pytest.fixture(autouse=True)
def process_keeps_its_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "no_new_privileges", lambda: None)
