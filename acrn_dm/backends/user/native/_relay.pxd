# A queue that is relayed to a back-end which takes no notes: see ``relay.py``.

from acrn_dm._fastring cimport FrShadow
from acrn_dm.base.events._aio cimport KernelSignal
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint16_t, uint32_t

cdef struct Note:
    uint32_t in_bytes
    uint16_t before           # in the order in which requests came
    uint16_t behind
    bint in_flight


cdef class RelayPlane(Plane):
    cdef KernelSignal _signal
    cdef Note *_notes                     # by head; one more than the ring has entries, as the ends of the list
    cdef uint32_t _size
    cdef readonly uint32_t in_flight
    cdef object _memory                   # keeps the shadow ring mapped
    cdef Py_buffer _view
    cdef FrShadow _shadow                 # closed: no back-end
    cdef int _shadow_kick
    cdef int _shadow_call
    cdef bint _broken                     # the back-end wrote nonsense; Python says so
    cdef uint32_t _nonsense_head
    cdef uint32_t _nonsense_bytes
    cdef bint _jumped

    cdef void _note(self, uint16_t head, uint32_t in_bytes) noexcept nogil
    cdef void _forget(self, uint16_t head) noexcept nogil
    cdef void _publish(self) noexcept nogil
    cdef bint _answer(self) noexcept nogil
