"""What can go wrong with the lab itself, as opposed to what is tested in it."""


class LabError(Exception):
    """The lab broke: QEMU died, the agent stopped answering, a tool failed."""


class LabUnavailable(LabError):
    """The lab cannot exist on this host; the message is the reason to skip with."""


class LabTimeout(LabError):
    """A command in the outer VM took too long. It has been killed; its output so far is in the message."""
