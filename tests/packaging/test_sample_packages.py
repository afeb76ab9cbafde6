"""The packages in ``plugins/`` from their wheels: built, installed into an empty environment, tested there.

The environment has the wheels and what they and pytest declare as their dependencies, and neither this source tree nor
a network.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.process  # it compiles the extension modules: a minute

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
GENERATED = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "build")
PIP = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input"]


OFFERED = """
from acrn_dm.contract.plugins import make_plugin_manager
manager = make_plugin_manager()
assert not manager.problems, manager.problems
types = *manager.device_types().values(), *manager.backend_types(), *manager.hypervisor_types().values()
print(*map(manager.provider, types), sep="\\n")
"""


def run(*command: str | Path, folder: Path) -> str:
    """The output of a program that ends well, with nothing of our own environment's but the path."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "CFLAGS": "-O0", "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Distributions that *names* need here, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def link(distribution: str, folder: Path) -> None:
    """Put what is installed here of *distribution* into *folder*."""
    installed = importlib.metadata.distribution(distribution)
    tops = {file.parts[0] for file in installed.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        (folder / top).symlink_to(Path(str(installed.locate_file(top))))


@attrs.frozen
class Environment:
    """An environment with acrn-dm from its wheel."""

    folder: Path
    wheels: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, source: Path) -> None:
        """Build the wheel of *source*, and install that."""
        built = self.wheels / source.name
        run(*PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", built, source, folder=self.wheels)
        (wheel,) = built.glob("*.whl")
        run(*PIP, "--python", self.python, "install", "--no-deps", wheel, folder=self.wheels)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("packages")
    made = Environment(folder / "venv", folder)
    venv.create(made.folder, with_pip=False, symlinks=True)
    source = folder / "acrn-dm"
    shutil.copytree(ROOT / "acrn_dm", source / "acrn_dm", ignore=GENERATED)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    made.install(source)
    shutil.rmtree(source)
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for name in with_dependencies(["pluggy", "attrs", "pytest"]):
        link(name, dependencies)
    (packages,) = made.folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return made


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_package_passes_its_tests_where_only_wheels_are(environment: Environment, sample: Path, tmp_path: Path) -> None:
    copied = tmp_path / sample.name
    shutil.copytree(sample, copied, ignore=GENERATED)
    environment.install(copied)
    shutil.rmtree(copied / "src")
    project = tomllib.loads((copied / "pyproject.toml").read_text())["project"]
    (module,) = project["entry-points"]["acrn_dm"].values()
    where = f"import acrn_dm, {module} as m; print(acrn_dm.__file__, m.__file__, sep='\\n')"
    places = run(environment.python, "-I", "-c", where, folder=tmp_path).splitlines()
    assert all(Path(place).is_relative_to(environment.folder) for place in places)
    pytest_ = ("-I", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-W", "error")
    report = run(environment.python, *pytest_, "-c", os.devnull, copied / "tests", folder=tmp_path)
    assert " passed" in report
    offered = run(environment.python, "-I", "-c", OFFERED, folder=tmp_path)
    assert f"({project['name']} {project['version']})" in offered
