"""What two parts of one machine can't both have, under whatever name."""

import os
from pathlib import Path

import pytest

from acrn_dm.base.files.claims import Claim, conflicts, name_key, path_key
from acrn_dm.base.files.file_locks import Access

WRITER, READER = Access(), Access(writes=False)
SHARER, LOOKER = Access(shares=True), Access(writes=False, shares=True)


def part(start: int, length: int, *, writes: bool = True) -> Access:
    return Access(writes=writes, part=(start, length))


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        (WRITER, WRITER, True),
        (WRITER, READER, True),
        (READER, READER, False),
        (SHARER, SHARER, False),
        (SHARER, WRITER, True),
        (SHARER, READER, True),
        (LOOKER, WRITER, False),
        (LOOKER, READER, False),
        (part(0, 8), part(8, 8), False),
        (part(0, 8), part(7, 8), True),
        (part(0, 8, writes=False), part(7, 8, writes=False), False),
        (part(0, 8, writes=False), part(7, 8), True),
        (part(0, 8), WRITER, True),
        (part(0, 8), READER, True),
        (part(0, 8), SHARER, True),
        (part(0, 8), LOOKER, False),
    ],
)
def test_who_excludes_whom(one: Access, other: Access, excluded: bool) -> None:
    assert (one.excludes(other), other.excludes(one)) == (excluded, excluded)


def test_conflict_is_one_line_that_names_both_users_and_both_names() -> None:
    key = ("file", 1, 2)
    users = [("disk 3", Claim(key=key, what="a.img")), ("disk 4", Claim(key=key, what="b.img", hint="do this"))]
    assert conflicts(users) == ["disk 4: b.img is used by disk 3, as a.img, already; do this"]


def test_different_things_are_no_conflict() -> None:
    assert conflicts([("a", Claim(key=("x",), what="x")), ("b", Claim(key=("y",), what="x"))]) == []


def test_links_and_other_names_are_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "symlink").symlink_to(file)
    os.link(file, tmp_path / "hard")
    keys = {path_key(tmp_path / name) for name in ("file", "symlink", "hard", "../" + tmp_path.name + "/file")}
    assert len(keys) == 1
    assert path_key(tmp_path) not in keys


def test_what_is_not_there_yet_is_known_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert path_key(tmp_path / "link" / "absent") == name_key(tmp_path / "absent")
    assert path_key(tmp_path / "absent") != path_key(tmp_path / "other")
