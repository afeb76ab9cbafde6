"""VERSION, with which a vfio-user connection begins: the numbers, and capabilities as JSON."""

import json

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user.message import MAX_FDS, MAX_TRANSFER, VERSION, Message


def parse(message: Message) -> tuple[int, int, dict[str, object]]:
    """Major, minor, capabilities. Raises PeerError: without them there is no connection."""
    size = len(message.payload)
    if size < VERSION.size:
        raise PeerError(f"VERSION of {size} bytes")
    major, minor = VERSION.unpack_from(message.payload)
    text = message.payload[VERSION.size :]
    if not text:
        return major, minor, {}
    if not text.endswith(b"\0"):
        raise PeerError("VERSION whose JSON has no end")
    try:
        said = json.loads(text[:-1] or b"{}")
    except (ValueError, RecursionError) as e:
        raise PeerError(f"VERSION whose JSON can't be read: {e}") from e
    capabilities = said.get("capabilities", {}) if isinstance(said, dict) else None
    if not isinstance(capabilities, dict):
        raise PeerError("VERSION whose capabilities are no object")
    return major, minor, capabilities


def limit(capabilities: dict[str, object], key: str, otherwise: int) -> int:
    """A positive number among *capabilities*, *otherwise* at most. Raises PeerError."""
    value = capabilities.get(key, otherwise)
    if type(value) is not int or value <= 0:
        raise PeerError(f"VERSION whose {key} is {value!r:.40}")
    return min(value, otherwise)


def reply(room: int, *, multi: bool) -> bytes:
    """Our version with the capabilities that fit into *room* bytes: clients have no more for the answer."""
    said: dict[str, object] = {"max_msg_fds": MAX_FDS, "max_data_xfer_size": MAX_TRANSFER, "pgsizes": 4096}
    if multi:
        said = {"write_multiple": True, **said}
    while said:
        text = json.dumps({"capabilities": said}, separators=(",", ":")).encode() + b"\0"
        if VERSION.size + len(text) <= room:
            return VERSION.pack(0, 0) + text
        said.popitem()
    return VERSION.pack(0, 0) + (b"{}\0" if room >= VERSION.size + 3 else b"\0" * (room > VERSION.size))
