"""memory.allocate: huge pages where they are asked for, or wanted and to be had."""

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.memory.allocate import allocate, shortage
from acrn_dm.memory.guest_memory import MIB, MemoryRange
from acrn_dm.memory.hugepages import HugePages

RANGES = (MemoryRange(gpa=0, size=4 * MIB),)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was asked for in huge pages, of a host that has none."""
    sizes: list[int] = []

    @contextlib.contextmanager
    def reserved(self: HugePages, ranges: Sequence[tuple[int, int]]) -> Iterator[None]:
        sizes.append(sum(size for _, size in ranges))
        raise HostError("there are none")
        yield

    monkeypatch.setattr(HugePages, "reserved", reserved)
    monkeypatch.setattr(HugePages, "shortage", lambda self, size: f"{size >> 20} MiB are short")
    return sizes


@pytest.mark.parametrize(
    ("hugepages", "wanted", "tried"), [("off", True, False), ("auto", False, False), ("auto", True, True)]
)
def test_ordinary_pages_do_where_huge_ones_are_not_insisted_on(
    asked: list[int], caplog: pytest.LogCaptureFixture, hugepages: str, wanted: bool, tried: bool
) -> None:
    memory = allocate(RANGES, hugepages=hugepages, wanted=wanted, dumped=False)
    memory.close()
    assert asked == ([4 * MIB] if tried else [])
    assert ("ordinary pages, which is slower: there are none" in caplog.text) is tried


def test_huge_pages_that_are_insisted_on_and_not_there_are_an_error(asked: list[int]) -> None:
    with pytest.raises(HostError, match="there are none"):
        allocate(RANGES, hugepages="on", wanted=False, dumped=False)


def test_shortage_is_looked_for_where_huge_pages_are_insisted_on(asked: list[int]) -> None:
    assert shortage(4 * MIB, hugepages="on") == "4 MiB are short"
    assert shortage(4 * MIB, hugepages="auto") is None
