"""A ring whose chains go back in the order in which the driver made them available (IN_ORDER; virtio 1.4, 2.7.9,
2.8.9).

For devices that complete requests as they are done: a chain that is ready waits here until all before it are. A used
element is written for each chain, which a driver may count on as little as on batches; a batch with one element in all
would say that the others were filled to the end.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from acrn_dm._fastring import Chain
from acrn_dm.ring.ring import Ring


class InOrderRing:
    """The ring *inner*, of any format, with its chains put back in order; a ``Ring`` itself. One thread at a time uses
    it. Where whoever serves it next takes chains again, those that wait here are among them: the driver has not seen
    that they were done.
    """

    def __init__(self, inner: Ring) -> None:
        self._inner = inner
        self._out: deque[Chain] = deque()  # taken and not returned, in their order
        self._done: dict[int, int] = {}  # head -> bytes written, of those that wait for an earlier one

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        """Take up to *limit* available chains, in order."""
        chains = self._inner.pop_batch(limit)
        self._out += chains
        return chains

    def unpop(self, chains: Sequence[Chain]) -> None:
        """Give the chains taken last back. Raises ValueError for one that was pushed."""
        if any(chain.head in self._done for chain in chains):
            raise ValueError("the chain is no longer in flight")
        self._inner.unpop(chains)
        for _ in chains:
            self._out.pop()

    def push(self, chain: Chain, written: int | None = None) -> None:
        """Return a chain, now or when all before it are returned. Raises ValueError as a ring does, at once."""
        count = chain.written if written is None else written
        if self._out and self._out[0] is chain:
            self._inner.push(chain, count)
            self._out.popleft()
            self._release()
            return
        if chain.head in self._done or not any(chain is one for one in self._out):
            raise ValueError("the chain is no longer in flight")
        if not 0 <= count <= chain.writable_bytes:
            raise ValueError(f"{count} bytes written to a chain with {chain.writable_bytes} writable ones")
        self._done[chain.head] = count

    def _release(self) -> None:
        while self._out and self._out[0].head in self._done:
            chain = self._out.popleft()
            self._inner.push(chain, self._done.pop(chain.head))

    def close(self) -> None:
        """Let go of guest memory, and of what waits."""
        self._out.clear()
        self._done.clear()
        self._inner.close()
