"""The package that ``acrn-dm-plugin new`` writes: one folder of texts for each kind, filled by ``string.Template``.

Whole files, not code that writes code: they are read as they are, and linted and tested once they are filled. copier or
cookiecutter would ask each author to install one more program for what the standard library does here.
"""

import importlib.resources
import re
import string
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.contract.options import did_you_mean

PREFIX = "acrn-dm-"
MAX_NAME = 32
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")

COMMON = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "gitignore.in": ".gitignore",
    "github.yml.in": ".github/workflows/test.yml",
    "gitlab.yml.in": ".gitlab-ci.yml",
}
CONFORMANCE = {"../common/test_conformance.py.in": "tests/test_conformance.py"}
MODULE = {"module.py.in": "src/$package/__init__.py"}
DEVICE = {**MODULE, **CONFORMANCE, "test_device.py.in": "tests/test_device.py"}
# Of a plugin that has hooks for devices only; one with others is imported at each start.
DEVICES = """
# A line for each device that it offers: acrn-dm imports the plugin when one of them is asked for. A plugin with hooks
# that every start has to call, such as acrn_dm_add_options, has none of these lines.
[project.entry-points."acrn_dm.devices"]
$name = "$package"
"""
DEVICE_BODY = "`acrn-dm -s $name,help` shows the options."
DEVICE_TRY = "acrn-dm --dry-run -s 0,hostbridge -s 3,$name -k bzImage vm1"


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of plugin: its files (text -> place), and what README says of it."""

    summary: str
    files: Mapping[str, str]
    try_it: str = DEVICE_TRY
    body: str = DEVICE_BODY
    build_requires: tuple[str, ...] = ("setuptools>=77",)
    data: tuple[str, ...] = ()
    devices: str = DEVICES


KINDS = {
    "virtio": Kind(summary="a virtio device", files=DEVICE),
    "pci": Kind(summary="a PCI device with registers, an interrupt and DMA", files=DEVICE),
    "backend": Kind(
        summary="a backend that moves the data of virtio devices",
        files={**MODULE, "test_backend.py.in": "tests/test_backend.py"},
        try_it="acrn-dm --dry-run -s 3,virtio-blk,disk.img,backend=$name -k bzImage vm1",
        devices="",
        body="`backend=$name` among the options of a virtio device chooses it; `--$name-hide=MASK` hides features.",
    ),
    "block": Kind(
        summary="a block driver that executes a disk's requests",
        files={**MODULE, "test_driver.py.in": "tests/test_driver.py"},
        try_it="acrn-dm --dry-run -s 0,hostbridge -s 3,virtio-blk,driver=$name -k bzImage vm1",
        body="`acrn-dm -s virtio-blk,driver=$name,help` shows the options.",
    ),
    "packet": Kind(
        summary="a packet driver that carries a card's frames",
        files={**MODULE, "test_driver.py.in": "tests/test_driver.py"},
        try_it="acrn-dm --dry-run -s 0,hostbridge -s 3,virtio-net,driver=$name -k bzImage vm1",
        body="`acrn-dm -s virtio-net,driver=$name,help` shows the options.",
    ),
    "hypervisor": Kind(
        summary="a hypervisor",
        files={**MODULE, "test_hypervisor.py.in": "tests/test_hypervisor.py"},
        try_it="acrn-dm --hypervisor $name -s 0,hostbridge -k bzImage vm1",
        devices="",
        body="`acrn-dm --hypervisor help` shows whether it can be used on this host.",
    ),
    "cython": Kind(
        summary="a virtio device with its work in C",
        files={
            **DEVICE,
            "_work.pyx.in": "src/$package/_work.pyx",
            "_work.pyi.in": "src/$package/_work.pyi",
            "setup.py.in": "setup.py",
        },
        body=DEVICE_BODY + " A C compiler and Python's headers are needed (Debian: gcc, python3-dev).",
        build_requires=("setuptools>=77", "Cython>=3.1,<4"),
        data=("*.pyi",),
    ),
}


def plain_name(name: str) -> str:
    """*name* without the prefix that distributions have. Raises ConfigError for what is no name."""
    plain = name.removeprefix(PREFIX)
    if not _NAME.match(plain) or len(plain) > MAX_NAME:
        text = f"a name is 1 to {MAX_NAME} lower-case letters and digits, perhaps with '-' between, as in my-disk"
        raise ConfigError(text, option="new", value=name, usage=True)
    return plain


def files(name: str, kind: str, version: str) -> dict[str, str]:
    """The package's files, path -> text. Raises ConfigError for a kind that is not there."""
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise ConfigError(f"no such kind; {hint}known: {', '.join(KINDS)}", option="--kind", value=kind, usage=True)
    chosen = KINDS[kind]
    values = _values(plain_name(name), chosen, version)
    texts = importlib.resources.files(__package__) / "templates"
    places = {f"../common/{source}": place for source, place in COMMON.items()} | dict(chosen.files)
    made = {_fill(place, values): _fill(_text(texts, kind, source), values) for source, place in places.items()}
    made[_fill("src/$package/py.typed", values)] = ""
    return dict(sorted(made.items()))


def write(folder: Path, made: Mapping[str, str]) -> None:
    """Write *made* into the new *folder*. Raises ConfigError where it is there already, HostError."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError("it is there already, and nothing is overwritten", option="new", value=str(folder)) from None
    except OSError as e:
        raise HostError.from_os(f"making {folder}", e) from e
    for place, text in made.items():
        path = folder / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as e:
            raise HostError.from_os(f"writing {path}", e) from e


def _values(plain: str, kind: Kind, version: str) -> dict[str, str]:
    test_requires = ("pytest>=8", "ruff>=0.5", "mypy>=1.10")
    values = {
        "name": plain,
        "dist": f"{PREFIX}{plain}",
        "package": f"acrn_dm_{plain.replace('-', '_')}",
        "Class": "".join(part.capitalize() for part in plain.split("-")),
        "summary": kind.summary,
        "version": version,
        "build_requires": ", ".join(f'"{need}"' for need in kind.build_requires),
        "test_requires": ", ".join(f'"{need}"' for need in test_requires),
        "more_data": "".join(f', "{pattern}"' for pattern in kind.data),
        "pad": " " * max(0, 8 - len(plain)),
    }
    texts = {"try_it": kind.try_it, "body": kind.body, "devices": kind.devices}
    return values | {key: _fill(text, values) for key, text in texts.items()}


def _text(texts: Traversable, kind: str, source: str) -> str:
    common = source.removeprefix("../common/")
    folder = kind if common == source else "common"
    return texts.joinpath(folder, common).read_text(encoding="utf-8")


def _fill(text: str, values: Mapping[str, str]) -> str:
    return string.Template(text).substitute(values)
