"""The packages that ``acrn-dm-plugin new`` makes, as their authors find them: green, linted and typed at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acrn_dm.author import template
from acrn_dm.author.cli import main

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.stress  # a pytest, a ruff and a mypy of their own


def run(folder: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package of each kind, made by the program."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in template.KINDS:
        assert main(["new", f"try-{kind}", "--kind", kind, "--into", str(folder)]) == 0
    run(folder / "acrn-dm-try-cython", "setup.py", "-q", "build_ext", "--inplace", CFLAGS="-O0")
    return folder


@pytest.mark.parametrize("kind", template.KINDS)
def test_tests_are_green_at_once(packages: Path, kind: str) -> None:
    report = run(packages / f"acrn-dm-try-{kind}", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in report
    assert "skipped" not in report


def test_all_are_linted(packages: Path) -> None:
    for kind in template.KINDS:
        run(packages / f"acrn-dm-try-{kind}", "-m", "ruff", "check", "-q", ".")
        run(packages / f"acrn-dm-try-{kind}", "-m", "ruff", "format", "-q", "--check", ".")


def test_all_are_typed(packages: Path) -> None:
    """In one run, with the strictness of their own configuration: most of it is reading acrn_dm."""
    sources = [packages / f"acrn-dm-try-{kind}" / "src" / f"acrn_dm_try_{kind}" for kind in template.KINDS]
    where = os.pathsep.join(map(str, [ROOT, *(source.parent for source in sources)]))
    run(packages, "-m", "mypy", "--strict", "--follow-imports=silent", *map(str, sources), MYPYPATH=where)
