"""The machine's identity: the names in its tables."""

import functools
import uuid
from pathlib import Path

import attrs

from acrn_dm.base.files.digest import sha1
from acrn_dm.base.files.installed import version_of
from acrn_dm.base.records import frozen

MANUFACTURER, PRODUCT = "ACRN", "acrn_dm"
MACHINE_ID = Path("/etc/machine-id")
_NAMESPACE = uuid.UUID("5f0a3c5e-6d0e-5b0c-9a54-0c1d3f0b7e21")


@functools.cache
def program_version() -> str:
    """Our version; 0 where we are not installed."""
    return version_of("acrn-dm") or "0"


@functools.cache  # a reset of the guest opens no path again
def lasting_uuid(name: str, machine_id: Path = MACHINE_ID) -> uuid.UUID:
    """The UUID of the VM *name* on this host: the same at each start, another on each host that has an id."""
    try:
        host = machine_id.read_text().strip()
    except (OSError, UnicodeDecodeError):
        host = ""
    digest = sha1(_NAMESPACE.bytes + f"{host}/{name}".encode())  # RFC 4122, 4.3, as uuid.uuid5 does by hashlib
    return uuid.UUID(bytes=digest[:16], version=5)


@frozen(kw_only=True)
class Identity:
    """*name* is the VM's; the guest finds it as the system's serial number and as the chassis' asset tag."""

    name: str
    uuid: uuid.UUID
    version: str = attrs.field(factory=program_version)
