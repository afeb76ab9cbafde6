"""Commands for a guest and their answers: the host's side of what shell.sh speaks.

A command is a line; its answer is its output and a last line ``END number status``. The first answer, number 0, says
that the guest is up.
"""

import re
import shlex
import time
from collections.abc import Callable

from acrn_dm.testing.guest.errors import CommandFailed, HarnessError, HarnessTimeout
from acrn_dm.testing.guest.process import Process

_LOOK_S = 0.02
_SHOWN = 2000  # characters of an output in a message


class Dialogue:
    """The conversation with one guest over *process*, whose standard input and output are the guest's port.

    *last_words* says for messages what the guest's kernel and *program*, which the process is, printed last.
    """

    def __init__(self, process: Process, last_words: Callable[[], str], program: str = "acrn-dm") -> None:
        self._process = process
        self._last_words = last_words
        self._program = program
        self._number = 0
        self._read = 0  # characters of the output that belong to earlier commands

    def wait_up(self, timeout: float) -> None:
        """Until the guest is up. Raises HarnessTimeout, and HarnessError when the process ends first."""
        self._answer(timeout, f"the guest did not come up within {timeout:g} s")

    def run(self, command: str, timeout: float, shown: str = "") -> str:
        """The output of a shell command line, or of lines of them, as they are in the guest's own shell. Messages have
        *shown* in place of the command.

        Raises CommandFailed for a status other than 0; HarnessTimeout past *timeout* seconds, and the command goes on
        in the guest; HarnessError when the guest or the process ends.
        """
        self._number += 1
        shown = shown or command
        self._process.write(one_line(command).encode() + b"\n")
        output, status = self._answer(timeout, f"no answer from the guest to {shown!r} within {timeout:g} s")
        if status:
            raise CommandFailed(shown, status, output)
        return output

    def reboot(self, timeout: float) -> None:
        """Reset the machine and wait until the guest is there again."""
        self._number = 0
        self._process.write(b"reboot -f\n")
        self.wait_up(timeout)

    def _answer(self, timeout: float, late: str) -> tuple[str, int]:
        end = re.compile(rf"^END ({self._number}|0) (\d+)\r?\n", re.MULTILINE)
        deadline = time.monotonic() + timeout
        while not (found := end.search(text := self._process.stdout, self._read)):
            if self._process.returncode is not None:
                raise HarnessError(f"{self._program} ended with {self._process.returncode}{self._last_words()}")
            if time.monotonic() > deadline:
                raise HarnessTimeout(f"{late}: {text[self._read :][-_SHOWN:]}{self._last_words()}")
            time.sleep(_LOOK_S)
        output, self._read = text[self._read : found.start()], found.end()
        if int(found[1]) != self._number:
            self._number = 0
            raise HarnessError(f"the guest has rebooted by itself{self._last_words()}")
        return self._own(output), int(found[2])

    def _own(self, output: str) -> str:
        """The last command's part of *output*: before it may stand answers that came too late."""
        late = list(re.finditer(rf"^END (?!{self._number} )\d+ \d+\r?\n", output, re.MULTILINE))
        return (output[late[-1].end() :] if late else output).strip()


def one_line(command: str) -> str:
    """*command* as one line for the guest's shell."""
    command = command.strip("\n")
    return command if "\n" not in command else "eval " + shlex.quote(command).replace("\n", "'$'\\n''")
