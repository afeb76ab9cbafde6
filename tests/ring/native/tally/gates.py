"""Memory in which something happens between two loads: pages that are closed, and open when somebody comes."""

import ctypes
import mmap
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

READ_WRITE, NONE = mmap.PROT_READ | mmap.PROT_WRITE, 0
SA_SIGINFO = 4
SI_ADDR = 16  # in siginfo_t, where pointers have 64 bits

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """The C library's ``struct sigaction``."""

    _fields_ = (
        ("handler", _HANDLER),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.sigaction.argtypes = [ctypes.c_int, ctypes.POINTER(_Action), ctypes.POINTER(_Action)]


@attrs.define(eq=False)
class Gates:
    """The pages of *memory*, by their offsets. *came* is called with one that was closed and is open now, on the thread
    that comes there, before its access is made again.
    """

    memory: mmap.mmap
    came: Callable[[int], None] = lambda page: None

    def close(self, page: int) -> None:
        """Call *came* at the next access."""
        self._protect(page, NONE)

    def _protect(self, page: int, access: int) -> None:
        assert _libc.mprotect(self._start() + page, mmap.PAGESIZE, access) == 0

    def _start(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def open(self, address: int) -> bool:
        """Open the page at *address* for whoever came there; False for an address elsewhere."""
        page = (address - self._start()) // mmap.PAGESIZE * mmap.PAGESIZE
        if not 0 <= page < len(self.memory):
            return False
        self._protect(page, READ_WRITE)
        self.came(page)
        return True


@contextmanager
def attended(gates: Gates) -> Iterator[None]:
    """Whoever comes to a closed page is let in. A fault elsewhere is what it was before."""
    before = _Action()

    def fault(number: int, info: int, context: int) -> None:
        address = ctypes.c_void_p.from_address(info + SI_ADDR).value or 0
        if not gates.open(address):
            _libc.sigaction(number, before, None)

    action = _Action(handler=_HANDLER(fault), flags=SA_SIGINFO)
    assert _libc.sigaction(signal.SIGSEGV, action, before) == 0
    try:
        yield
    finally:
        _libc.sigaction(signal.SIGSEGV, before, None)
