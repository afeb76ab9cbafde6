from pathlib import Path
from typing import Any

import pytest

from acrn_dm.cli import logs
from tests.cli.fakes import Cli


@pytest.fixture
def cli(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    (tmp_path / "kmsg").touch()
    monkeypatch.setattr(logs, "KMSG", tmp_path / "kmsg")
    monkeypatch.setattr(logs, "LOG_FOLDER", tmp_path / "logs")
    monkeypatch.delenv("ACRN_DM_TRACEBACK", raising=False)
    monkeypatch.delenv("POSIXLY_CORRECT", raising=False)
    return Cli(capsys)
