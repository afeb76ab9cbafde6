"""The write-cache mode: what ``writeback`` in the configuration space reads, and whether a completed write is durable.

The two are one and the same: 0 means that each write is on the medium when it completes (5.2.6.2).

============ ================================ ==========================================================
moment       driver                           ``writeback`` from then on
============ ================================ ==========================================================
reset        any                              as the option says
negotiation  a modern one writes it           unchanged: it may not write yet (3.1.1)
negotiation  a legacy one writes it           as written (5.2.5.3)
FEATURES_OK  modern                           as the option says, but 0 without FLUSH (5.2.5.2, 5.2.6.2)
DRIVER_OK    modern, or legacy with           unchanged (5.2.5.3)
             CONFIG_WCE
DRIVER_OK    legacy without CONFIG_WCE        as the option says, but 0 without FLUSH (5.2.5.3, 5.2.6.2)
later        any with CONFIG_WCE writes it    as written
later        any without CONFIG_WCE writes it unchanged: for it the field does not exist
pause        any                              unchanged, also when it goes on
============ ================================ ==========================================================
"""

import attrs

from acrn_dm.base.records import define

FLUSH, CONFIG_WCE = 1 << 9, 1 << 11  # feature bits, 5.2.3


@define(eq=False)
class CacheMode:
    """The mode of one disk. *option* is what the user asked for: True for write-back."""

    option: bool
    writeback: bool = attrs.field(init=False)
    _features: int | None = attrs.field(default=None, init=False)  # None during negotiation

    @writeback.default
    def _as_the_option_says(self) -> bool:
        return self.option

    def reset(self) -> None:
        """The driver is gone."""
        self._features, self.writeback = None, self.option

    def features_ok(self, features: int) -> None:
        """A modern driver negotiated *features*."""
        self._features = features
        self.writeback = self._default(features)

    def driver_ok(self, features: int) -> None:
        """The driver begins, or goes on after a pause, with *features*; a legacy one comes here only."""
        self._features = features
        if not features & CONFIG_WCE:
            self.writeback = self._default(features)

    def write(self, value: bool, *, legacy: bool) -> None:
        """The driver writes the field, through the *legacy* interface or the modern one."""
        if legacy if self._features is None else self._features & CONFIG_WCE:
            self.writeback = value

    def _default(self, features: int) -> bool:
        """A driver that can't flush gets no write-back."""
        return self.option and bool(features & FLUSH)
