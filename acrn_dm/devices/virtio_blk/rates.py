"""The options that limit a disk's operations and bytes a second. They mean what QEMU's of these names mean; see
``native/throttle``.
"""

from typing import Any

import attrs

from acrn_dm.base.records import frozen
from acrn_dm.contract.option_types import ByteSize
from acrn_dm.contract.options import option, parse_options

KINDS = ("iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr")
WORDS = {"iops": "operations", "bps": "bytes", "": "reads and writes together", "_rd": "reads", "_wr": "writes"}
MOST = 10**15  # units of a burst; a double still counts them one by one


def _positive(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 0 or value > MOST:
        raise ValueError(f"{attribute.name} {value}: expected 0 (no limit) to {MOST}")


def _words(kind: str) -> str:
    unit, _, way = kind.partition("_")
    return f"{WORDS[unit]} a second, {WORDS['_' + way if way else '']}"


def option_of_rate(kind: str) -> Any:
    """The limit of *kind*."""
    return option(default=0, validator=_positive, help=f"Limit of {_words(kind)}; 0: none.")


def option_of_burst(kind: str) -> Any:
    """The limit of *kind* while a burst lasts."""
    return option(default=0, validator=_positive, help=f"As many as {kind}_max a second in a burst; 0: no bursts.")


def option_of_length(kind: str) -> Any:
    """The seconds that a burst of *kind* may last."""
    return option(default=1, validator=_positive, help=f"For how many seconds a burst of {kind}_max may last.")


@frozen(kw_only=True)
class RateOptions:
    """The limits. Raises ValueError for those that exclude one another."""

    iops: int = option_of_rate("iops")
    iops_max: int = option_of_burst("iops")
    iops_max_length: int = option_of_length("iops")
    iops_rd: int = option_of_rate("iops_rd")
    iops_rd_max: int = option_of_burst("iops_rd")
    iops_rd_max_length: int = option_of_length("iops_rd")
    iops_wr: int = option_of_rate("iops_wr")
    iops_wr_max: int = option_of_burst("iops_wr")
    iops_wr_max_length: int = option_of_length("iops_wr")
    iops_size: ByteSize = option(
        default=0, validator=_positive, help="Bytes that count as one operation; 0: as many as a request has."
    )
    bps: ByteSize = option_of_rate("bps")
    bps_max: ByteSize = option_of_burst("bps")
    bps_max_length: int = option_of_length("bps")
    bps_rd: ByteSize = option_of_rate("bps_rd")
    bps_rd_max: ByteSize = option_of_burst("bps_rd")
    bps_rd_max_length: int = option_of_length("bps_rd")
    bps_wr: ByteSize = option_of_rate("bps_wr")
    bps_wr_max: ByteSize = option_of_burst("bps_wr")
    bps_wr_max_length: int = option_of_length("bps_wr")

    def __attrs_post_init__(self) -> None:
        self.check_rates()

    def check_rates(self) -> None:
        """Raise ValueError, with the options' names, for limits that exclude one another."""
        for kind in KINDS:
            self._check_burst(kind)
        for both, *ways in (KINDS[:3], KINDS[3:]):
            for way in ways:
                self._check_alone(both, way)
        if self.iops_size and not (self.iops or self.iops_rd or self.iops_wr):
            raise ValueError("iops_size needs a limit of operations: iops, iops_rd or iops_wr")

    def _check_burst(self, kind: str) -> None:
        rate, burst, seconds = self.rate(kind)
        if burst and not rate:
            raise ValueError(f"{kind}_max needs {kind}, the limit behind the burst")
        if burst and burst < rate:
            raise ValueError(f"{kind}_max {burst} is lower than {kind} {rate}")
        if seconds != 1 and not burst:
            raise ValueError(f"{kind}_max_length needs {kind}_max")
        if seconds < 1 or burst * seconds > MOST:
            raise ValueError(f"{kind}_max_length {seconds}: expected 1 or more, and at most {MOST} in the burst")

    def _check_alone(self, both: str, way: str) -> None:
        for index, suffix in enumerate(("", "_max")):
            if self.rate(both)[index] and self.rate(way)[index]:
                raise ValueError(f"{both}{suffix} and {way}{suffix} exclude each other")

    def rate(self, kind: str) -> tuple[int, int, int]:
        """The limit of *kind*: units a second, in a burst, and seconds of it."""
        return self.rates[KINDS.index(kind)]

    @property
    def rates(self) -> tuple[tuple[int, int, int], ...]:
        """All limits in the order of ``BlkThrottle.set``."""
        return (
            (self.iops, self.iops_max, self.iops_max_length),
            (self.iops_rd, self.iops_rd_max, self.iops_rd_max_length),
            (self.iops_wr, self.iops_wr_max, self.iops_wr_max_length),
            (self.bps, self.bps_max, self.bps_max_length),
            (self.bps_rd, self.bps_rd_max, self.bps_rd_max_length),
            (self.bps_wr, self.bps_wr_max, self.bps_wr_max_length),
        )


def read_rates(text: str, what: str) -> RateOptions:
    """The limits in *text*, ``NAME=N,...``; those that it does not name are none. Raises ConfigError."""
    return parse_options(RateOptions, text, what)
