"""Failures of what boots guests, and of what guests are told to do."""


class HarnessError(Exception):
    """It broke: QEMU died, the guest did not come up or crashed, acrn-dm ended, the agent stopped answering."""


class HarnessUnavailable(HarnessError):
    """It cannot exist on this host; the message is the reason to skip with, in one line."""


class HarnessTimeout(HarnessError):
    """A command took too long. Its output so far is in the message."""


class CommandFailed(HarnessError):
    """A command in a guest that ended with a *status* other than 0; *output* is all that it printed."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"{command!r} in the guest ended with {status}: {output[-2000:] or 'no output'}")
        self.command, self.status, self.output = command, status, output
