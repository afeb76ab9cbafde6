"""Setups: the ways in which a driver can use one device. A rule says over which of them it has to be seen."""

import itertools
from collections.abc import Mapping, Sequence

import attrs

MODERN, LEGACY = "modern", "legacy"
MSIX, MSI, INTX = "msix", "msi", "intx"
SPLIT = "split"
FORMATS = (SPLIT,)  # those of ``ring.factory``
AXES = ("ring", "transport", "interrupts", "pairs")

Axes = Mapping[str, Sequence[str | int]]


@attrs.frozen(kw_only=True)
class Setup:
    """One way: ring format, transport, how the device interrupts, and how many queue pairs (or request queues) its
    driver uses of those there are.
    """

    ring: str = SPLIT
    transport: str = MODERN
    interrupts: str = MSIX
    pairs: int = 1

    @property
    def legacy(self) -> bool:
        """Whether the driver is one of before virtio 1.0."""
        return self.transport == LEGACY

    def __str__(self) -> str:
        return f"{self.transport} {self.ring} {self.interrupts} pairs={self.pairs}"


def choose(axes: Axes, over: Sequence[str], pinned: Mapping[str, str]) -> list[Setup]:
    """Setups that vary along the axes *over* and have the first value, or what is *pinned*, along the others.

    *axes* are the values that the device has; none are returned when it lacks a pinned one. A modern driver uses one
    interrupt mode as well as another, so that the first value is the one of a driver of today.
    """
    values: list[Sequence[str | int]] = []
    for axis in AXES:
        if axis in pinned:
            values.append([value for value in axes[axis] if value == pinned[axis]])
        else:
            values.append(axes[axis] if axis in over else axes[axis][:1])
    return [Setup(**dict(zip(AXES, chosen, strict=True))) for chosen in itertools.product(*values)]  # type: ignore[arg-type]
