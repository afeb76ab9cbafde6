"""The carrier of a card's frames, from its options to its descriptors: a tap, a driver, or nothing where another
process moves them.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from acrn_dm.base.errors import AcrnDmError, ConfigError, PluginError
from acrn_dm.base.files.claims import Claim, socket_claim
from acrn_dm.base.records import define
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.contract.drivers.guarded import asked, lines
from acrn_dm.contract.drivers.packet import PacketDriver, PacketFile
from acrn_dm.contract.plugins.guard import told
from acrn_dm.contract.types import ChosenDriver
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.drivers.tap import TapDriver, TapOptions
from acrn_dm.devices.virtio_net.request import OFFLOADS
from acrn_dm.virtio.optional import Sandboxed

if TYPE_CHECKING:
    from acrn_dm.devices.virtio_net.drivers.port import DriverPort

log = logging.getLogger(__name__)


@define(eq=False)
class Carrier:
    """The carrier of card *name*'s frames; *chosen* is none where another process moves them."""

    name: str
    config: NetConfig
    chosen: ChosenDriver | None
    _port: "DriverPort | None" = attrs.field(default=None, init=False)
    _open: bool = attrs.field(default=False, init=False)

    @property
    def text(self) -> str:
        """What it is, for people: ``tap tap0``."""
        return f"tap {self.config.tap}" if self.config.tap is not None else f"driver {self.config.driver}"

    @property
    def offloads(self) -> int:
        """Feature bits of what frames may need."""
        return self._driver.offloads if self.chosen is not None else OFFLOADS

    def check(self) -> list[str]:
        """What is missing on this host, one line each. Raises PluginError."""
        return lines(self.chosen) if self.chosen is not None else []

    def claims(self) -> Sequence[Claim]:
        """What it uses of the host. A socket's process serves one client. Raises PluginError."""
        if self.config.vhost_user is not None:
            return [socket_claim(self.config.vhost_user)]
        assert self.chosen is not None
        return asked(self.chosen, self._driver.claims)

    def sandbox_needs(self) -> Needs:
        """What it does when it is open. Raises PluginError."""
        if self.chosen is None or not isinstance(self.chosen.driver, Sandboxed):
            return Needs()
        return asked(self.chosen, self.chosen.driver.sandbox_needs)

    def open(self, tell: Callable[[bool], None]) -> tuple[PacketFile, ...]:
        """A descriptor for each queue pair; *tell* gets news of the link, on any thread. Raises ConfigError, HostError,
        PluginError.
        """
        chosen, pairs = self.chosen, self.config.mq
        if chosen is None:
            return ()
        made = asked(chosen, lambda: self._driver.files(pairs))
        self._open = True
        if made is None:
            return self._begin(chosen, pairs, tell)
        files = tuple(made)
        if len(files) != pairs or not all(isinstance(file, PacketFile) for file in files):
            raise PluginError(f"files made {files!r}, not {pairs} PacketFile", provenance=chosen.blamed)
        return files

    def close(self) -> None:
        """Close what ``open`` opened, but for the descriptors. Idempotent."""
        port, self._port = self._port, None
        opened, self._open = self._open, False
        if port is not None and not port.close():
            log.error("%s: it does not come back from a frame; it is left as it is", port.blamed)
        elif opened and self.chosen is not None:
            try:
                self._driver.close()
            except (Exception, SystemExit) as e:  # it stops nobody
                log.error("%s: closing: %s", self.chosen.blamed, told(e))

    def _begin(self, chosen: ChosenDriver, pairs: int, tell: Callable[[bool], None]) -> tuple[PacketFile, ...]:
        from acrn_dm.devices.virtio_net.drivers.port import DriverPort  # noqa: PLC0415  # for cards that have one

        port = DriverPort(self.name, self._driver, chosen.blamed, tell)
        files = tuple(asked(chosen, lambda: port.make_files(pairs)))
        try:
            asked(chosen, lambda: self._driver.open(port, pairs))
        except AcrnDmError:
            port.close()
            for file in files:
                file.close()
            with contextlib.suppress(AcrnDmError):  # the first reason is the better one
                asked(chosen, self._driver.close)
            self._open = False
            raise
        port.begin()
        self._port = port
        return files

    @property
    def _driver(self) -> PacketDriver:
        assert self.chosen is not None
        assert isinstance(self.chosen.driver, PacketDriver)
        return self.chosen.driver


def carrier(
    name: str, config: NetConfig, chosen: ChosenDriver | None, open_tap: Callable[[str], PacketFile]
) -> Carrier:
    """The carrier that *config* and *chosen* mean; *open_tap* is how taps are opened. Raises ConfigError."""
    if chosen is not None and isinstance(chosen.driver, TapDriver):
        config, chosen = chosen.driver.card_options(config), None
    if config.tap is not None:
        tap = TapDriver(TapOptions(tap=config.tap), pairs=config.mq, open_tap=open_tap)
        chosen = ChosenDriver(name="tap", driver=tap, blamed=name)
    if config.driver is not None and chosen is None:
        raise ConfigError("a driver can't be chosen here", option=name, value=config.driver)
    return Carrier(name, config, chosen)
