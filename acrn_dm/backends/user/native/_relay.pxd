# A queue that is relayed to a back-end which takes no notes: see ``relay.py``.

from acrn_dm._fastring cimport FrShadow
from acrn_dm.base.events._aio cimport KernelSignal
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint32_t

cdef struct RelayLink:        # what looks for answers: the plane itself is the context of what looks for chains
    void *plane


cdef class RelayPlane(Plane):
    cdef RelayLink _link
    cdef KernelSignal _signal
    cdef uint32_t _size
    cdef object _memory                   # keeps the shadow ring mapped
    cdef Py_buffer _view
    cdef FrShadow _shadow                 # closed: no back-end; what is in flight is noted all the same
    cdef int _shadow_kick
    cdef int _shadow_call
    cdef bint _broken                     # the back-end wrote nonsense; Python says so
    cdef uint32_t _nonsense_head
    cdef uint32_t _nonsense_bytes
    cdef bint _jumped

    cdef void _publish(self) noexcept nogil
    cdef bint _answer(self) noexcept nogil
    cdef bint _look(self) noexcept nogil
