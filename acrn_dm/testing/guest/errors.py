"""The errors that can happen with what boots guests, as opposed to what is tested in them."""


class HarnessError(Exception):
    """It broke: QEMU died, the agent stopped answering, a tool failed."""


class HarnessUnavailable(HarnessError):
    """It cannot exist on this host; the message is the reason to skip with."""


class HarnessTimeout(HarnessError):
    """A command in the outer VM took too long. It has been killed; its output so far is in the message."""
