"""The I/O loops of one process, by name: each made when it is first asked for, all given back together."""

import threading

import attrs

from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.base.steps import do_all


@define(eq=False)
class IoLoops:
    """Loops that move data. Without *threads* nothing runs by itself: tests step them."""

    threads: bool = True
    clock: Clock = REAL
    by_name: dict[str, IoLoop] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def get(self, name: str) -> IoLoop:
        """The loop of that name, made (and its thread started) on first use. Any thread."""
        with self._lock:
            if name not in self.by_name:
                loop = IoLoop(name, self.clock)
                self.by_name[name] = loop
                if self.threads:
                    loop.start()
            return self.by_name[name]

    def close(self) -> None:
        """Stop and close every loop; goes on after errors and raises the first one at the end. Idempotent."""
        with self._lock:
            loops = list(self.by_name.values())
            self.by_name.clear()
        do_all([loop.close for loop in loops])
