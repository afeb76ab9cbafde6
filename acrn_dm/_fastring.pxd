# The virtqueue at C speed: what other Cython modules may ``cimport``. The face of the units in ``ring/native``.
#
# Leaf functions are ``noexcept nogil`` and return an FrStatus; who calls from Python code turns a negative one into an
# exception with ``fr_raise``. Structs are plain data: whoever holds one keeps the object alive that owns it (an FrRing
# its SplitRing, an FrMemory its MemoryMap). A module that cimports this needs the package's folder in its
# ``include_dirs``, for ``_atomics.h``. Spec numbers are those of virtio 1.4.

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_load_u32, fr_load_u64, fr_store_release_u16, fr_store_u16,
    fr_store_u32, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE, FR_MAX_BATCH, FR_MAX_DESCRIPTORS,
)
from acrn_dm.ring.native._chain cimport FR_INLINE_SEGMENTS, Chain, RingBase, new_chain
from acrn_dm.ring.native._memory cimport (
    FR_MAX_REGIONS, FrMemory, FrRegion, FrSegment, MemoryMap, fr_in_ram, fr_translate,
)
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked, FrRing, FrVirtqueue
from acrn_dm.ring.native._ring cimport NativeRing, PackedRing, SplitRing
from acrn_dm.ring.native._shadow cimport (
    FR_SHADOW_EMPTY, FR_SHADOW_JUMPED, FR_SHADOW_NONSENSE, FR_SHADOW_TAKEN, FrShadow, fs_add, fs_close, fs_free,
    fs_make, fs_note, fs_open, fs_publish, fs_take, fs_want_calls, fs_wants_kick,
)
from acrn_dm.ring.native._status cimport (
    FR_E_ADDRESS, FR_E_AVAIL_JUMP, FR_E_HEAD, FR_E_ID_IN_FLIGHT, FR_E_IN_FLIGHT, FR_E_INDIRECT_ADDRESS,
    FR_E_INDIRECT_LEN, FR_E_INDIRECT_LIST, FR_E_INDIRECT_NESTED, FR_E_INDIRECT_NEXT, FR_E_INDIRECT_OFF, FR_E_NEXT,
    FR_E_NOT_AVAILABLE, FR_E_NOT_IN_FLIGHT, FR_E_NOT_LAST, FR_E_ORDER, FR_E_OVERRUN, FR_E_ROOM, FR_E_TOO_LONG,
    FR_E_TOTAL, FR_EMPTY, FR_OK, FrStatus,
)
from acrn_dm.ring.native._virtqueue cimport (
    vq_disable_kicks, vq_enable_kicks, vq_ends_at, vq_hold, vq_look, vq_next, vq_pop_batch, vq_publish, vq_push,
    vq_raise, vq_release, vq_ring, vq_unpop,
)
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_AVAIL, FR_DESC_F_USED, FR_EVENT_DESC, FR_EVENT_DISABLE, FR_EVENT_ENABLE,
)
from acrn_dm.ring.native.packed._packed cimport (
    fp_disable_kicks, fp_enable_kicks, fp_look, fp_publish, fp_push, fp_unpop,
)
from acrn_dm.ring.native.packed._pop cimport fp_pop_batch
from acrn_dm.ring.native.split._layout cimport FR_AVAIL_F_NO_INTERRUPT, FR_USED_F_NO_NOTIFY
from acrn_dm.ring.native.split._pop cimport fr_pop, fr_pop_batch
from acrn_dm.ring.native.split._split cimport (
    fr_disable_kicks, fr_enable_kicks, fr_load_avail, fr_publish, fr_push, fr_raise, fr_unpop,
)
from acrn_dm.ring.native.tally._tally cimport FrTally, RingTally, ft_sample, ft_wants_kick
