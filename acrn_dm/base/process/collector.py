"""The garbage collector of a start.

What a start makes are modules, classes and records, which stay: looking at them again and again finds nothing and took
an eighth of the time. So the collector rests until there is a machine, and never looks at what there is by then.
"""

import gc


class Collector:
    """Python's collector, which rests from now on until ``settle`` or ``resume``."""

    def __init__(self) -> None:
        self._was_on = gc.isenabled()
        gc.disable()

    def settle(self) -> None:
        """All that there is stays: collect among what is made from now on. For a process that has one purpose."""
        gc.freeze()
        self.resume()

    def resume(self) -> None:
        """As it was before."""
        if self._was_on:
            gc.enable()
