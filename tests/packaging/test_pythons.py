"""The package on each Python that it says it runs on, as far as this machine has them."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.packaging.environments import GENERATED, link, run, with_dependencies

pytestmark = pytest.mark.process  # each compiles the extension modules: half a minute

ROOT = Path(__file__).resolve().parents[2]
CLASSIFIERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
VERSIONS = [name.rpartition(" ")[2] for name in CLASSIFIERS if name.startswith("Programming Language :: Python :: 3.")]
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"  # all other tests run on it


def python(version: str) -> str | None:
    """A program that is Python *version*: on the path, or one of pyenv's."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        whence = subprocess.run([pyenv, "whence", f"python{version}"], capture_output=True, text=True, check=False)
        for name in whence.stdout.split():
            prefix = subprocess.run([pyenv, "prefix", name], capture_output=True, text=True, check=False)
            candidates.append(f"{prefix.stdout.strip()}/bin/python{version}")
    for program in filter(None, candidates):
        if subprocess.run([program, "-c", "import ctypes"], capture_output=True, check=False).returncode == 0:
            return program
    return None


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != OWN])
def test_package_is_built_and_tests_a_plugin_on(version: str, tmp_path: Path) -> None:
    program = python(version)
    if program is None:
        pytest.skip(f"Python {version} is not on this machine")
    for name in ("acrn_dm", "plugins/acrn-dm-rng"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=GENERATED)
    shutil.copy2(ROOT / "setup.py", tmp_path)
    # Cython's C is the same for every Python 3; older than its source it would be made anew.
    for path in (tmp_path / "acrn_dm").rglob("*.c"):
        os.utime(path)
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for name in with_dependencies(["pluggy", "attrs", "pytest", "Cython", "setuptools"]):
        link(name, dependencies)
    start = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(dependencies)!r}]; "
    build = "sys.argv = ['setup.py', '-q', 'build_ext', '--inplace']; import runpy; runpy.run_path('setup.py')"
    run(program, "-I", "-B", "-c", start + build, folder=tmp_path)
    tests = tmp_path / "plugins" / "acrn-dm-rng"
    pytest_ = "import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-W', 'error', 'tests']))"
    assert " passed" in run(program, "-I", "-B", "-c", start + pytest_, folder=tests)
