"""Parts of each program that serves devices: a parser that raises, exit codes, one line for each failure."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.log_text import escaped
from acrn_dm.base.process import privileges, users
from acrn_dm.base.process.stderr import say
from acrn_dm.base.sandbox import MODES, OFF

MAX_FD = 2**31 - 1
EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG = 1, 64, 78


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving with an exit code of its own."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(message, usage=True)


def run(program: str, work: Callable[[], int]) -> int:
    """Do *work* and return its exit code, or that of what it raised, which is said on stderr. Raises nothing."""
    privileges.no_new_privileges()
    try:
        return work()
    except AcrnDmError as e:
        say(f"{program}: {escaped(str(e))}")
        if not isinstance(e, ConfigError):
            return EXIT_FAILURE
        return EXIT_USAGE if e.usage else EXIT_CONFIG


def add_socket_options(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """``--socket-path`` and ``--fd``, which exclude each other, and what else each such program has."""
    path = "listen at this socket" + "; once for each device, or once for all: their numbers are appended" * several
    number = "use this inherited socket, connected or listening" + "; once for each device" * several
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-s", "--socket-path", type=Path, action="append", default=[], metavar="PATH", help=path)
    where.add_argument("--fd", type=_descriptor, action="append", default=[], metavar="FDNUM", help=number)
    parser.add_argument("--print-capabilities", action="store_true", help="say as JSON what this is, and exit")
    parser.add_argument(
        "--dump-guest-core", choices=("on", "off"), default="off", help="guest memory in core dumps (default: off)"
    )
    parser.add_argument(
        "--sandbox",
        choices=MODES,
        default=OFF,
        help="once the device is open, take all rights that it does not need (default: off); strict: or don't start",
    )
    parser.add_argument(
        "--user",
        type=_user,
        metavar="NAME|UID[:GROUP]",
        help="once the device is open, be this user instead of root, in no other group",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")


def check_user(user: users.User | None) -> None:
    """Raises ConfigError where this process can't become *user*."""
    why = None if user is None else users.problem(user)
    if user is not None and why is not None:
        raise ConfigError(why, option="--user", value=user.text)


def _user(text: str) -> users.User:
    """Raises ArgumentTypeError."""
    try:
        return users.find(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _descriptor(text: str) -> int:
    """A descriptor's number, as C has it. Raises ArgumentTypeError."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > MAX_FD:
        raise argparse.ArgumentTypeError(f"expected 0 to {MAX_FD}, the number of an open socket")
    return int(text)
