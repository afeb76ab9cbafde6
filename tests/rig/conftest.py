"""A rig of its own for each test, loaded into this process; what it reports has to be expected by the test."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from lab.hsm.build import RigUnavailable, library
from tests.rig.client import Client


@attrs.define(eq=False)
class Rig:
    """The emulated HSM in this process."""

    path: Path
    folder: Path
    expected: list[str] = attrs.field(factory=list)

    def open(self, vcpus: int = 1) -> Client:
        return Client(self.path, vcpus)

    def violations(self) -> list[str]:
        file = self.folder / "report"
        return file.read_text().splitlines() if file.exists() else []

    def trace(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "trace").read_text().splitlines()]

    def calls(self) -> list[str]:
        return [row["call"] for row in self.trace()]

    def stats(self) -> list[dict[str, int]]:
        return [json.loads(line) for line in (self.folder / "stats").read_text().splitlines()]

    def expect(self, *texts: str) -> None:
        """These violations, each containing the text, and no others."""
        self.expected = list(texts)


def fails(err: int, action: Callable[[], Any]) -> None:
    """The action raises OSError with this number."""
    with pytest.raises(OSError) as caught:
        action()
    assert errno.errorcode[caught.value.errno] == errno.errorcode[err]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    try:
        built = library()
    except RigUnavailable as e:
        pytest.skip(str(e))
    for name in [name for name in os.environ if name.startswith("RIG_")]:
        monkeypatch.delenv(name)
    for name in ("report", "trace", "stats"):
        monkeypatch.setenv(f"RIG_{name.upper()}", str(tmp_path / name))
    own = tmp_path / "librig.so"  # a copy: one path is one instance in a process
    shutil.copy(built, own)
    rig = Rig(own, tmp_path)
    yield rig
    found = rig.violations()
    assert len(found) == len(rig.expected), found
    assert all(text in line for text, line in zip(rig.expected, found, strict=True)), found


@pytest.fixture
def no_guest(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vCPUs run nothing, so /dev/kvm is not needed."""
    monkeypatch.setenv("RIG_STORM", "0")
