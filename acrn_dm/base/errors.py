"""Errors typed by blame: who has to act.

``ConfigError`` the user, ``GuestError`` the guest's driver, ``PluginError`` a plugin's author, ``HostError`` the host
(the kernel, a file, a peer). Everything else that escapes is a bug of ours and ends the process with the
internal-error code.
"""

import errno
import os


class AcrnDmError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(AcrnDmError):
    """The user asked for something that cannot be had; the message is one line and says what is allowed.

    ``option`` names the option or TOML key at fault, ``value`` what stood there.
    """

    def __init__(self, message: str, *, option: str | None = None, value: object = None, usage: bool = False) -> None:
        super().__init__(message)
        self.option = option
        self.value = value
        self.usage = usage  # the command line itself is malformed: exit code 64 instead of 78

    def __str__(self) -> str:
        text = super().__str__()
        if self.option is None:
            return text
        if self.value is None:
            return f"{self.option}: {text}"
        return f"{self.option}: {self.value!r}: {text}"


class GuestError(AcrnDmError):
    """The driver in the guest broke the protocol. Never leaves the device it concerns."""


class HostError(AcrnDmError):
    """The host refused: names the call, the errno and, where known, the likely fix.

    ``confined_by`` is the option that took rights from this process, if one did: it may be what refused.
    """

    confined_by = ""

    def __init__(self, message: str, *, err: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.err = err
        self.hint = hint

    @classmethod
    def from_os(cls, what: str, error: OSError, hint: str | None = None) -> "HostError":
        """Describe *error*, raised while doing *what*."""
        if hint is None and cls.confined_by and error.errno in (errno.EPERM, errno.EACCES):
            hint = f"{cls.confined_by} may be why"
        if error.errno is None and str(error):  # Python's own, such as the end of a time limit
            what += f": {error}"
        return cls(what, err=error.errno, hint=hint)

    def __str__(self) -> str:
        text = super().__str__()
        if self.err is not None:
            text += f": {os.strerror(self.err)} ({errno.errorcode.get(self.err, self.err)})"
        return f"{text}; {self.hint}" if self.hint else text


class PluginError(AcrnDmError):
    """A plugin broke its contract; names plugin, distribution, version and hook."""

    def __init__(self, message: str, *, provenance: str, hook: str | None = None) -> None:
        super().__init__(message)
        self.provenance = provenance
        self.hook = hook
        self.reason = message  # without them

    def __str__(self) -> str:
        where = self.provenance if self.hook is None else f"{self.provenance}: {self.hook}"
        return f"{where}: {super().__str__()}"
