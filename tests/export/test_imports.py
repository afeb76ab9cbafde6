"""Devices served to others share the wire formats with the vhost-user backend, and nothing else of it."""

from pathlib import Path

from tests.source_tree import Tree

TREE = Tree.read(Path(__file__).resolve().parents[2] / "acrn_dm")


def test_export_has_no_word_of_the_other_end() -> None:
    found = {to for source, _, to in TREE.edges if source.module.startswith("export/") and to.startswith("backends/")}
    assert [place for place in found - {"backends/vbs_u"} if not place.startswith("backends/wire/")] == []
    assert any(place.startswith("backends/wire/") for place in found)
