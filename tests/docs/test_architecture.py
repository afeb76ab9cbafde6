"""ARCHITECTURE.md: the modules, functions and files that it names are there."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = sorted(set(re.findall(r"`([^`\n]+)`", (ROOT / "ARCHITECTURE.md").read_text())))
FILE = re.compile(r"[\w./-]+\.(?:py|pyx|c|toml)|(?:acrn_dm|tests|benchmarks|lab|plugins|tools)/[\w./-]*")


def is_there(name: str) -> bool:
    """Whether ``acrn_dm.<name>`` is a module or something in one."""
    parts = name.removeprefix("acrn_dm.").split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["acrn_dm", *parts[:n]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[n:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False


@pytest.mark.parametrize("name", [w for w in WORDS if re.fullmatch(r"[a-z_]\w*(\.\w+)+", w) and not FILE.fullmatch(w)])
def test_dotted_name_is_a_module_of_ours_or_in_one(name: str) -> None:
    assert is_there(name)


@pytest.mark.parametrize("name", [w for w in WORDS if FILE.fullmatch(w)])
def test_file_is_there(name: str) -> None:
    assert any((folder / name).exists() for folder in (ROOT, ROOT / "acrn_dm"))


def test_name_that_is_gone_is_seen() -> None:
    assert is_there("machine.machine")
    assert not is_there("machine.gone")
    assert not is_there("gone.machine")
    assert not is_there("machine.machine.gone")
