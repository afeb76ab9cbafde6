"""Digests for names that are derived from text, not for secrets.

Made by the interpreter itself where it can: hashlib loads OpenSSL for the same numbers, 3 ms and a megabyte.
"""


def md5(data: bytes) -> bytes:
    """The 16 bytes of RFC 1321."""
    try:
        from _md5 import md5  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:  # an interpreter that was built without
        from hashlib import md5  # noqa: PLC0415
    return bytes(md5(data, usedforsecurity=False).digest())


def sha1(data: bytes) -> bytes:
    """The 20 bytes of FIPS 180-4."""
    try:
        from _sha1 import sha1  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        from hashlib import sha1  # noqa: PLC0415
    return bytes(sha1(data, usedforsecurity=False).digest())
