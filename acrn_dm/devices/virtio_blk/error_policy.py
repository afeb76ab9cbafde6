"""``werror`` and ``rerror``: what is done when the host fails a request (QEMU's words, meanings and defaults).

What the guest got wrong never comes here: it is answered before anything is executed. Neither does QEMU's ``ignore``
exist: it answers that something is written which is not.
"""

import errno

from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.image.trust import LostError
from acrn_dm.devices.virtio_blk.request import Op

FULL = (errno.ENOSPC, errno.EDQUOT)


def stops_guest(config: BlkConfig, op: Op, error: OSError) -> bool:
    """Whether the guest is to stand still until somebody has mended *error*, after which the request is done again.

    What a medium does not know, and what is lost for good, is reported under any policy: trying again changes nothing.
    """
    if error.errno == errno.EOPNOTSUPP or isinstance(error, LostError):
        return False
    if op is Op.READ:
        return config.rerror == "stop"
    return config.werror == "stop" or (config.werror == "enospc" and error.errno in FULL)
