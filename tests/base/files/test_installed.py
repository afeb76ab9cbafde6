"""acrn_dm.base.files.installed: what importlib.metadata says of installed distributions, without it."""

import importlib.metadata
import sys
import zipfile
from pathlib import Path

import pytest

from acrn_dm.base.files.installed import EntryPoint, entry_points, version_of
from tests.contract.plugins.installed import install


def told(entries: list[EntryPoint]) -> list[tuple[object, ...]]:
    return sorted((e.name, e.value, e.dist.name, e.dist.version) for e in entries)  # type: ignore[attr-defined]


@pytest.mark.parametrize("group", ["acrn_dm", "console_scripts", "pytest11", "nobody's"])
def test_entry_points_are_those_of_the_library(group: str) -> None:
    library = importlib.metadata.entry_points(group=group)
    assert told(entry_points(group)) == sorted(
        (e.name, e.value, e.dist.name, e.dist.version) for e in library if e.dist
    )


def test_version_is_that_of_the_library() -> None:
    assert version_of("Acrn_DM") == importlib.metadata.version("acrn-dm")


def test_version_of_what_is_not_installed_is_none() -> None:
    assert version_of("acrn-dm-nowhere") is None


def test_of_two_distributions_of_one_name_the_first_on_the_path_counts(tmp_path: Path) -> None:
    for folder, version in (("a", "2"), ("b", "1")):
        install(tmp_path / folder, "odd", "", version=version)
    assert [e[3] for e in told(entry_points("acrn_dm", [str(tmp_path / "a"), str(tmp_path / "b")]))] == ["2"]


def test_description_is_no_header(tmp_path: Path) -> None:
    install(tmp_path, "odd", "")
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    metadata.write_text("Metadata-Version: 2.1\n\nName: of the wind\n")
    (entry,) = entry_points("acrn_dm", [str(tmp_path)])
    assert entry.dist.name is None  # type: ignore[attr-defined]


def test_record_is_read_once(tmp_path: Path) -> None:
    install(tmp_path, "odd", "", version="3")
    (entry,) = entry_points("acrn_dm", [str(tmp_path)])
    assert entry.dist.name == "acrn-dm-odd"  # type: ignore[attr-defined]
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    metadata.unlink()
    assert entry.dist.version == "3"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "what"),
    [("os.path", "posixpath"), ("os:path.join", "join"), ("os : path.join [extra]", "join")],
)
def test_entry_point_loads_a_module_or_what_is_in_one(value: str, what: str) -> None:
    assert EntryPoint("x", value, None).load().__name__ == what  # type: ignore[attr-defined]


def test_entry_point_that_names_nothing_says_so() -> None:
    with pytest.raises(ValueError, match="x = 'a b' is no MODULE"):
        EntryPoint("x", "a b", None).load()


def test_distribution_in_an_archive_is_found_by_the_library(tmp_path: Path) -> None:
    install(tmp_path / "plain", "odd", "")
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for file in (tmp_path / "plain").glob("*.dist-info/*"):
            opened.write(file, file.relative_to(tmp_path / "plain"))
    assert told(entry_points("acrn_dm", [str(archive)])) == told(entry_points("acrn_dm", [str(tmp_path / "plain")]))


def test_finder_with_distributions_of_its_own_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "odd", "")
    (folder,) = tmp_path.glob("*.dist-info")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None: ...

        @staticmethod
        def find_distributions(context: object = None) -> list[importlib.metadata.Distribution]:
            return [importlib.metadata.PathDistribution(folder)]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert "odd" in {e.name for e in entry_points("acrn_dm")}
