"""Setups: the ways in which a driver can use one device. A rule says over which of them it has to be seen."""

import itertools
from collections.abc import Mapping, Sequence

import attrs

MODERN, LEGACY = "modern", "legacy"
MSIX, MSI, INTX = "msix", "msi", "intx"
SPLIT, PACKED = "split", "packed"
FORMATS = (SPLIT, PACKED)  # those of ``ring.factory``
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
    interrupt mode as well as another, so that the first value is the one of a driver of today. Ring formats do not
    multiply: all setups have the first one, and each other one is seen once more, in the last setup that it is for.
    """
    formats, *others = ([v for v in axes[axis] if v == pinned.get(axis, v)] for axis in AXES)
    chosen = [
        values if axis in over or axis in pinned else values[:1] for axis, values in zip(AXES[1:], others, strict=True)
    ]
    ways = [dict(zip(AXES[1:], way, strict=True)) for way in itertools.product(*chosen)]
    modern = [way for way in ways if way["transport"] != LEGACY]  # a legacy driver has no bit for another format
    setups: list[Setup] = []
    for ring in formats:
        fitting = ways if ring == SPLIT else modern
        setups += [Setup(ring=str(ring), **way) for way in (fitting if ring == formats[0] else fitting[-1:])]  # type: ignore[arg-type]
    return setups
