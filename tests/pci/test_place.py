"""pci.place: where a function is, in words."""

import pytest

from acrn_dm.contract.types import Bdf
from acrn_dm.pci.place import parse_bdf


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3", (0, 3, 0)),
        ("1:0", (0, 1, 0)),
        ("3:7", (0, 3, 7)),
        ("3/1", (0, 3, 1)),
        ("3.1", (0, 3, 1)),
        ("0:31:7", (0, 31, 7)),
        ("2/3.4", (2, 3, 4)),
        ("255:0:0", (255, 0, 0)),
    ],
)
def test_place_is_slot_or_slot_function_or_all_three(text: str, place: tuple[int, int, int]) -> None:
    bus, slot, func = place
    assert parse_bdf(text) == Bdf(bus=bus, slot=slot, func=func)


@pytest.mark.parametrize(
    "text", ["", "32", "3:8", "256:1:0", "a", "0x3", "1:2:3:4", "-1", "3:", ":3", " 3", "9" * 5000]
)
def test_place_malformed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a place|not a decimal number"):
        parse_bdf(text)


@pytest.mark.parametrize("text", ["3/1", "3.1"])
def test_only_the_separators_asked_for_separate(text: str) -> None:
    with pytest.raises(ValueError, match=r"slot .* is not a decimal number"):
        parse_bdf(text, ":")
