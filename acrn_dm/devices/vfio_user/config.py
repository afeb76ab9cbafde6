"""Options of ``vfio-user``: all else the process says."""

from pathlib import Path

from acrn_dm.base.records import frozen
from acrn_dm.contract.options import option, socket_option


@frozen(kw_only=True)
class VfioUserConfig:
    """The options of one such function."""

    socket: Path = socket_option("Socket of the process that is the device.")
    ioeventfd: bool = option(
        default=False, help="Ask the process for eventfds for its doorbells; some processes end when they are asked."
    )
