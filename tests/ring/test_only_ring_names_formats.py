"""A ring format is named in ``acrn_dm/ring`` and its face, nowhere else: another one is added there alone."""

from pathlib import Path

import pytest

from tests.ring.format_names import violations

ROOT = Path(__file__).resolve().parents[2] / "acrn_dm"
# The kit hands drivers and models on to plugins; rules of the conformance suite that poke a ring's fields get it typed.
PASSED_ON = {ROOT / "testing" / "__init__.py", *(ROOT / "testing" / "conformance" / "rings").glob("*.py")}
OUTSIDE = sorted(
    path
    for path in ROOT.rglob("*.p*")
    if path.suffix in (".py", ".pyx", ".pxd")
    and ROOT / "ring" not in path.parents
    and path.stem != "_fastring"
    and path not in PASSED_ON
)


def test_no_module_outside_ring_names_a_ring_format_or_sums_its_offsets() -> None:
    found = {str(p.relative_to(ROOT)): violations(p.read_text(), cython=p.suffix != ".py") for p in OUTSIDE}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from acrn_dm._fastring import SplitRing",
        "from acrn_dm._fastring import PackedRing",
        "import acrn_dm.ring.split",
        "from acrn_dm.ring.packed.format import PACKED",
        "from acrn_dm.ring import split",
        "from acrn_dm.ring.native import _chain",
        "from acrn_dm.ring.layout import DESC",
        "ring = fast.SplitRing(memory)",
        "def make_packed_ring(): ...",
        "if features & RING_PACKED: pass",
        "index = memory.read(queue.used + 2, 2)",
        "index = memory.read(2 + avail, 2)",
        "length = 16 * queue.size",
        "length = queue.size * 16",
        "length = 4 + 2 * size + 2",
        "length = 8 * queue.size + 6",
        "entry = struct.Struct('<QIHH')",
        "at = layout.used_element_at(3)",
    ],
)
def test_a_planted_line_of_python_is_seen(line: str) -> None:
    assert violations(f"import os\n{line}\n", cython=False) != []


@pytest.mark.parametrize(
    "line",
    [
        "from acrn_dm._fastring cimport SplitRing",
        "from acrn_dm._fastring cimport FR_DESC_SIZE, MemoryMap",
        "from acrn_dm.ring.native._walk cimport walk",
        "    cdef FrRing *ring",
        "    idx = fr_load_acquire_u16(ring.avail + 2)",
    ],
)
def test_a_planted_line_of_cython_is_seen(line: str) -> None:
    assert violations(f"cdef int f(uint8_t *a) noexcept nogil:\n    pass\n{line.strip()}\n", cython=True) != []


@pytest.mark.parametrize(
    "line",
    [
        "words = text.split()",
        "packed = [wire.region(r) for r in regions]",
        "address = USER_BASE + queue.desc",
        "mask = (1 << 8 * size) - 1",
        "ring = make_ring(features, queue, memory)",
        "layout = RingLayout(size=1, desc=0, avail=0, used=0)",
    ],
)
def test_what_says_nothing_of_a_format_is_let_be(line: str) -> None:
    assert violations(line, cython=False) == []
