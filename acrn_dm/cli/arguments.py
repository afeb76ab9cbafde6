"""argv into settings, with the grammar of GNU getopt_long: interleaving, abbreviations, ``--name=value``."""

import getopt
from collections.abc import Sequence
from typing import Any

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.cli.grammar import Option, Table
from acrn_dm.cli.option_table import REMOVED, SHORT_OPTIONS
from acrn_dm.contract.options import did_you_mean


@frozen(kw_only=True)
class Setting:
    """One use of an option: *value* is True or False for a switch, else the text. *origin* names it in errors."""

    option: Option
    value: Any
    origin: str
    from_argv: bool = True

    def error(self, text: str, *, malformed: bool = False) -> ConfigError:
        """A ConfigError about this setting; a *malformed* value on the command line is a usage error."""
        value = None if isinstance(self.value, bool) else self.value
        return ConfigError(text, option=self.origin, value=value, usage=malformed and self.from_argv)


def parse_arguments(args: Sequence[str], table: Table) -> tuple[list[Setting], list[str]]:
    """Split *args* into settings and positional arguments. Raises ConfigError with ``usage`` set."""
    try:
        pairs, names = getopt.gnu_getopt(list(args), SHORT_OPTIONS, table.long_names)
    except getopt.GetoptError as e:
        raise _usage_error(e, table) from None
    return [_setting(spelling, value, table) for spelling, value in pairs], names


def understood(args: Sequence[str], table: Table) -> list[Setting]:
    """The settings of *args* as far as they can be understood, before the plugins have added their options.

    Tells which plugins to load, and whether help is all that is wanted. Anything malformed is left out here; the real
    parsing reports it.
    """
    rest = list(args)
    while rest:
        try:
            pairs, _ = getopt.gnu_getopt(rest, SHORT_OPTIONS, table.long_names)
        except getopt.GetoptError as e:
            shorter = _without(rest, e.opt)
            if len(shorter) == len(rest):
                return []
            rest = shorter
        else:
            return [_setting(s, v, table) for s, v in pairs if s in table.spellings]
    return []


def _without(args: list[str], opt: str) -> list[str]:
    """*args* without the first token that is the option *opt* (its name), or has it in a cluster of letters."""
    for i, token in enumerate(args):
        long = token.partition("=")[0] == f"--{opt}"
        cluster = len(opt) == 1 and token[:1] == "-" and token[1:2] != "-" and opt in token
        if long or cluster:
            return args[:i] + args[i + 1 :]
    return args


def _setting(spelling: str, value: str, table: Table) -> Setting:
    option = table.spellings.get(spelling)
    if option is None:
        raise ConfigError(REMOVED[spelling], option=spelling, usage=True)
    origin = f"-{option.short}" if spelling == f"-{option.short}" else f"--{option.name}"
    return Setting(option=option, value=value if option.metavar else True, origin=origin)


def _usage_error(error: getopt.GetoptError, table: Table) -> ConfigError:
    """getopt's complaint in our words: it may be translated, and it does not know the alternatives."""
    long = f"--{error.opt}"
    spelling = long if len(error.opt) != 1 or f"-{error.opt}" not in error.msg.split() else f"-{error.opt}"
    option = table.spellings.get(spelling)
    names = sorted(f"--{o.name}" for o in table.options)
    if option is not None and option.metavar:
        text = f"an argument is missing: {option.metavar}"
    elif option is not None:
        text = "takes no argument"
    elif candidates := [name for name in names if error.opt and name.startswith(spelling)]:
        text = f"ambiguous; it could be {', '.join(candidates)}"
    elif spelling in REMOVED:
        text = REMOVED[spelling]
    else:
        hint = did_you_mean(spelling, names) if spelling == long else ""
        text = f"there is no such option; {hint}see --help"
    return ConfigError(text, option=spelling, usage=True)
