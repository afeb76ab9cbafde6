"""acrn_dm.author.template: what ``acrn-dm-plugin new`` writes, each kind of it, before it is run."""

import ast
import itertools
import tomllib
from pathlib import Path

import pytest

from acrn_dm.author import template
from acrn_dm.base.errors import ConfigError
from tests.layer_rules import private_names

LONGEST = "a" * (template.MAX_NAME - 1) + "z"
PUBLIC = {"acrn_dm.testing", "acrn_dm.testing.conformance"}


@pytest.mark.parametrize("kind", template.KINDS)
def test_package_is_found_by_its_entry_point(kind: str) -> None:
    made = template.files("my-disk", kind, "1.2")
    project = tomllib.loads(made["pyproject.toml"])["project"]
    assert project["entry-points"]["acrn_dm"] == {"my-disk": "acrn_dm_my_disk"}
    assert project["name"] == "acrn-dm-my-disk"
    assert project["dependencies"] == ["acrn-dm>=1.2"]
    assert "src/acrn_dm_my_disk/__init__.py" in made


@pytest.mark.parametrize("kind", template.KINDS)
def test_package_has_what_a_package_needs(kind: str) -> None:
    made = template.files("edu", kind, "1.2")
    assert {"README.md", ".github/workflows/test.yml", ".gitlab-ci.yml", ".gitignore"} <= made.keys()
    assert any(place.startswith("tests/test_") for place in made)
    assert any("conform(" in text for text in made.values()) or kind in ("hypervisor", "block", "packet")


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(template.KINDS, ["e", LONGEST])))
def test_every_source_is_python_of_lines_that_fit_and_nothing_is_left_to_fill_in(kind: str, name: str) -> None:
    for place, text in template.files(name, kind, "1.2").items():
        assert place.endswith(".yml") or "$" not in text.replace("$ ", ""), place
        if place.endswith((".py", ".pyi")):
            ast.parse(text)
            assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("kind", template.KINDS)
def test_package_uses_public_names_only(kind: str, tmp_path: Path) -> None:
    import acrn_dm  # noqa: PLC0415
    import acrn_dm.testing as kit  # noqa: PLC0415
    from acrn_dm.testing import conformance  # noqa: PLC0415

    public = {m.__name__: m.__all__ for m in (acrn_dm, kit, conformance)}
    template.write(tmp_path / "made", template.files("edu", kind, "1.2"))
    assert [name for path in (tmp_path / "made").rglob("*.py") for name in private_names(path, public)] == []


@pytest.mark.parametrize("name", ["", "Edu", "1st", "my_disk", "-x", "a b", "../x", "ä", "a--b", "a-", LONGEST + "a"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is"):
        template.files(name, "virtio", "1.2")


def test_name_may_have_the_prefix_of_distributions() -> None:
    assert template.files("acrn-dm-edu", "pci", "1") == template.files("edu", "pci", "1")


def test_kind_that_is_not_there_suggests_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cython'"):
        template.files("edu", "cyton", "1.2")


def test_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="there already"):
        template.write(tmp_path, {"README.md": "new"})
    assert (tmp_path / "README.md").read_text() == "mine"
