"""The guard around a driver where no guest waits for it: what it raises names it, and is typed by blame."""

from collections.abc import Callable
from typing import TypeVar

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError, PluginError
from acrn_dm.contract.plugins.guard import told
from acrn_dm.contract.types import ChosenDriver

T = TypeVar("T")


def asked(chosen: ChosenDriver, call: Callable[[], T]) -> T:
    """What *call* of the driver returns. Raises AcrnDmError: HostError for its OSErrors, PluginError for the rest."""
    try:
        return call()
    except AcrnDmError:
        raise
    except OSError as e:
        raise HostError.from_os(chosen.blamed, e) from e
    except (Exception, SystemExit) as e:
        raise PluginError(told(e), provenance=chosen.blamed) from e


def lines(chosen: ChosenDriver) -> list[str]:
    """What the driver says is missing on this host. Raises PluginError."""
    return [f"{chosen.blamed}: {line}" for line in asked(chosen, lambda: list(chosen.driver.check()))]


def command(chosen: ChosenDriver, text: str) -> None:
    """Have the driver do what *text* says. Raises ConfigError for what it does not understand, else as ``asked``."""

    def obey() -> None:
        try:
            chosen.driver.control(text)
        except ValueError as e:
            raise ConfigError(str(e), option=chosen.blamed, value=text) from e

    asked(chosen, obey)
