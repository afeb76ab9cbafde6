# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Virtqueues at C speed: the face of the units in ``ring/native``, for Python and (by its ``.pxd``) for Cython.

The guest writes all of this memory while we read it. So each of its fields is loaded exactly once, every loop is
bounded by a number we chose, and a guest address becomes a pointer only in ``fr_translate``. The walk touches no Python
object.
"""

from acrn_dm.ring.native import _chain, _memory, _ring

# Not by ``from ... import``, which Cython leaves out for names that the .pxd has cimported.
globals().update(
    Chain=_chain.Chain, MemoryMap=_memory.MemoryMap, PackedRing=_ring.PackedRing, SplitRing=_ring.SplitRing
)
