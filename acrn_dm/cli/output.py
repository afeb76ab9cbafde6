"""Output to those who started the program: lines on stderr, texts on stdout."""

import os
import sys

from acrn_dm.base.errors import HostError


def complain(text: str) -> None:
    """One line on stderr, whatever is in *text*."""
    from acrn_dm.base.log_text import escaped  # noqa: PLC0415  # needs logging, which --version does not
    from acrn_dm.base.process.stderr import say  # noqa: PLC0415

    say(f"acrn-dm: {escaped(' '.join(text.split()))}")


def show(text: str) -> None:
    """Write *text* to stdout. Raises HostError; a reader that went away (``| head``) has seen enough."""
    try:
        print(_encodable(text, sys.stdout.encoding or "utf-8"), flush=True)
    except BrokenPipeError:
        _discard_stdout()
    except OSError as e:
        _discard_stdout()
        raise HostError.from_os("writing to stdout", e) from e


def _encodable(text: str, encoding: str) -> str:
    """*text* with what *encoding* can't express (a file name that is no UTF-8, say) as escapes."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _discard_stdout() -> None:
    """Keep the interpreter from failing again when it flushes stdout at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # there is nothing else to try
