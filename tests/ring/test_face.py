"""acrn_dm._fastring: the names that others import and cimport, wherever their units are."""

import re
from pathlib import Path

from acrn_dm import _fastring

PXD = Path(__file__).resolve().parents[2] / "acrn_dm" / "_fastring.pxd"
PYTHON = {"Chain", "MemoryMap", "PackedRing", "SplitRing"}
CYTHON = """
Chain FR_AVAIL_F_NO_INTERRUPT FR_DESC_F_AVAIL FR_DESC_F_INDIRECT FR_DESC_F_NEXT FR_DESC_F_USED FR_DESC_F_WRITE
FR_DESC_SIZE FR_EMPTY FR_EVENT_DESC FR_EVENT_DISABLE FR_EVENT_ENABLE FR_E_ADDRESS FR_E_AVAIL_JUMP FR_E_HEAD
FR_E_ID_IN_FLIGHT FR_E_INDIRECT_ADDRESS FR_E_INDIRECT_LEN FR_E_INDIRECT_LIST FR_E_INDIRECT_NESTED FR_E_INDIRECT_NEXT
FR_E_INDIRECT_OFF FR_E_IN_FLIGHT FR_E_NEXT FR_E_NOT_AVAILABLE FR_E_NOT_IN_FLIGHT FR_E_NOT_LAST FR_E_ORDER FR_E_OVERRUN
FR_E_ROOM FR_E_TOO_LONG FR_E_TOTAL FR_INLINE_SEGMENTS FR_MAX_BATCH FR_MAX_DESCRIPTORS FR_MAX_REGIONS FR_OK
FR_USED_F_NO_NOTIFY FrBatch FrChain FrMemory FrPacked FrRegion FrRing FrSegment FrStatus FrVirtqueue MemoryMap
PackedRing RingBase SplitRing fp_disable_kicks fp_enable_kicks fp_look fp_pop_batch fp_publish fp_push fp_unpop
fr_disable_kicks fr_enable_kicks fr_full_fence fr_in_ram fr_load_acquire_u16 fr_load_avail fr_load_u16 fr_load_u32
fr_load_u64 fr_pop fr_pop_batch fr_publish fr_push fr_raise fr_store_release_u16 fr_store_u16 fr_store_u32
fr_translate fr_unlikely fr_unpop vq_disable_kicks vq_enable_kicks vq_ends_at vq_look vq_next vq_pop_batch vq_publish
vq_push vq_raise vq_ring vq_unpop
"""


def test_python_finds_the_four_classes() -> None:
    assert {name for name in dir(_fastring) if not name.startswith("_")} == PYTHON


def test_cython_finds_every_name_that_a_data_plane_may_cimport() -> None:
    lists = re.findall(r"cimport (?:\(([^)]*)\)|(.*))", PXD.read_text())
    shown = {name for pair in lists for name in re.findall(r"\w+", " ".join(pair))}
    assert shown >= set(CYTHON.split())
