# A shadow ring of either format for the C units (ring/shadow.py), and notes of what is in flight in it: chains go in by
# their head, which is all that comes back. Who relays by it knows no field of a ring.

from acrn_dm.ring.native._records cimport FrChain, FrVirtqueue
from acrn_dm.ring.native.packed._layout cimport FR_N_IDS
from acrn_dm.ring.native.packed._shadow cimport (
    FrCell, FrPackedShadow, fps_add, fps_begin, fps_keep, fps_look, fps_open, fps_publish, fps_take,
)
from acrn_dm.ring.native.split._shadow cimport (
    FrSplitShadow, fss_add, fss_close, fss_look, fss_open, fss_publish, fss_returned, fss_take, fss_want_calls,
    fss_wants_kick,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    FR_SHADOW_TAKEN = 1
    FR_SHADOW_EMPTY = 0
    FR_SHADOW_JUMPED = -1       # more used elements than there can be
    FR_SHADOW_NONSENSE = -2     # a chain that is not in flight, or longer than it has room for

cdef struct FrNote:
    uint32_t in_bytes
    uint32_t before           # in the order in which chains came
    uint32_t behind
    uint32_t first            # of its descriptors, where those are kept
    uint32_t n_descriptors
    bint in_flight

cdef struct FrShadow:
    FrNote *notes             # by head; one more than there are heads, as the ends of the list
    uint32_t n_heads
    uint32_t n_in_flight
    uint32_t size
    bint packed
    bint is_open              # there is a ring; chains are noted without one, too
    FrSplitShadow split
    FrPackedShadow packed_ring

# Memory for a ring of *size* entries, with nothing in flight; false if there is none. Any buffer id may be a packed
# chain's, and the pages of its note come with it.
cdef inline bint fs_make(FrShadow *shadow, uint32_t size, bint packed) noexcept nogil:
    memset(shadow, 0, sizeof(FrShadow))
    shadow.size, shadow.packed = size, packed
    shadow.n_heads = <uint32_t>FR_N_IDS if packed else size
    shadow.notes = <FrNote *>calloc(shadow.n_heads + 1, sizeof(FrNote))
    if shadow.notes == NULL:
        return False
    shadow.notes[shadow.n_heads].before = shadow.notes[shadow.n_heads].behind = shadow.n_heads
    if packed:
        shadow.packed_ring.size = size
        shadow.packed_ring.cells = <FrCell *>calloc(size, sizeof(FrCell))
        if shadow.packed_ring.cells == NULL:
            return False
        fps_begin(&shadow.packed_ring)
    return True

cdef inline void fs_free(FrShadow *shadow) noexcept nogil:
    free(shadow.notes)
    free(shadow.packed_ring.cells)

# Make a chain available; the other side sees it at the next fs_publish. There are never more than there is room for.
cdef inline void fs_add(FrShadow *shadow, uint16_t head) noexcept nogil:
    if shadow.packed:
        fps_add(&shadow.packed_ring, head, shadow.notes[head].first, shadow.notes[head].n_descriptors)
    else:
        fss_add(&shadow.split, head)

cdef inline void fs_publish(FrShadow *shadow) noexcept nogil:
    if shadow.packed:
        fps_publish(&shadow.packed_ring)
    else:
        fss_publish(&shadow.split)

# As fss_wants_kick and fss_want_calls; around packed rings everything is told.
cdef inline bint fs_wants_kick(const FrShadow *shadow) noexcept nogil:
    return shadow.packed or fss_wants_kick(&shadow.split)

cdef inline void fs_want_calls(const FrShadow *shadow, bint wanted) noexcept nogil:
    if not shadow.packed:
        fss_want_calls(&shadow.split, wanted)

# Begin with an empty ring in these places, and all that is in flight available in it, in the order in which it came.
cdef inline void fs_open(FrShadow *shadow, uint8_t *desc, uint8_t *avail, uint8_t *used) noexcept nogil:
    cdef uint32_t head = shadow.notes[shadow.n_heads].behind
    if shadow.packed:
        fps_open(&shadow.packed_ring, desc)
        memset(avail, 0, 4)     # both sides want to be told of everything
        memset(used, 0, 4)
    else:
        fss_open(&shadow.split, avail, used, shadow.size)
    shadow.is_open = True
    while head != shadow.n_heads:
        fs_add(shadow, <uint16_t>head)
        head = shadow.notes[head].behind
    fs_publish(shadow)

cdef inline void fs_close(FrShadow *shadow) noexcept nogil:
    shadow.is_open = False
    fss_close(&shadow.split)
    shadow.packed_ring.desc = NULL

# Note a chain that was taken from *queue*, before another one is returned there.
cdef inline void fs_note(FrShadow *shadow, const FrVirtqueue *queue, const FrChain *chain) noexcept nogil:
    cdef FrNote *end = &shadow.notes[shadow.n_heads]
    cdef FrNote *note = &shadow.notes[chain.head]
    if shadow.packed:
        note.first = fps_keep(&shadow.packed_ring, queue.packed_ring, chain, &note.n_descriptors)
    note.in_bytes, note.in_flight = chain.in_bytes, True
    note.before, note.behind = end.before, shadow.n_heads
    shadow.notes[end.before].behind = chain.head
    end.before = chain.head
    shadow.n_in_flight += 1

cdef inline void fs_forget(FrShadow *shadow, uint32_t head) noexcept nogil:
    cdef FrNote *note = &shadow.notes[head]
    shadow.notes[note.before].behind = note.behind
    shadow.notes[note.behind].before = note.before
    note.in_flight = False
    shadow.n_in_flight -= 1

# Take the next chain that came back: FR_SHADOW_TAKEN, or what else there is. What the other side says is read once and
# checked; *head* and *written* are its words where they are nonsense, *head* the number of elements where it jumped.
cdef inline int fs_take(FrShadow *shadow, uint32_t *head, uint32_t *written) noexcept nogil:
    cdef FrNote *note
    cdef uint32_t left
    if shadow.packed:
        if not fps_look(&shadow.packed_ring, head, written):
            return FR_SHADOW_EMPTY
    else:
        left = fss_returned(&shadow.split)
        if left == 0:
            return FR_SHADOW_EMPTY
        if left > shadow.size:
            head[0] = left
            return FR_SHADOW_JUMPED
        fss_look(&shadow.split, head, written)
    if head[0] >= shadow.n_heads:
        return FR_SHADOW_NONSENSE
    note = &shadow.notes[head[0]]
    if not note.in_flight or written[0] > note.in_bytes:
        return FR_SHADOW_NONSENSE
    if shadow.packed:
        fps_take(&shadow.packed_ring, note.first, note.n_descriptors)
    else:
        fss_take(&shadow.split)
    fs_forget(shadow, head[0])
    return FR_SHADOW_TAKEN
