"""A console on a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.virtio_console.console_rig import SIZE, Console, console


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def plain(log: Path) -> Iterator[Console]:
    """One port on a file, without MULTIPORT."""
    with console(f"@file:con={log}", features=SIZE) as c:
        yield c
