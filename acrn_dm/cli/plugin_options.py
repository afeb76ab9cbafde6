"""Options of plugins: the parser that ``acrn_dm_add_options`` is called with."""

import contextlib
import re
from collections.abc import Iterator

import attrs

from acrn_dm.base.records import define
from acrn_dm.cli.grammar import Group, Option, Table, key_of

_NAME = r"(?:--)?([a-z][a-z0-9]*(?:[-_][a-z0-9]+)*)\Z"


@define(eq=False)
class OptionParser:
    """The long options of plugins; ``defaults`` holds for each the value when it is not given."""

    _core: tuple[Option, ...]
    _added: list[Option] = attrs.field(factory=list, init=False)
    defaults: dict[str, object] = attrs.field(factory=dict, init=False)

    def add_option(self, name: str, *, help: str, metavar: str | None = None, default: object = None) -> None:
        """Add ``--name METAVAR``, or without *metavar* a switch.

        The value is in ``MachineConfig.plugin_options[name]``: the text given, True for a switch, else *default* (False
        for a switch without one). Raises ValueError for a name that is malformed or taken.
        """
        match = re.match(_NAME, name)
        if match is None:
            raise ValueError(f"option name {name!r}: expected lower-case letters, digits, '-' and '_'")
        plain = match[1]
        if key_of(plain) in {key_of(o.name) for o in (*self._core, *self._added)} | {"name", "device", "uart"}:
            raise ValueError(f"the option --{plain} is taken")
        self._added.append(
            Option(
                name=plain,
                metavar=metavar,
                help=help,
                group=Group.PLUGIN,
                field=f"plugin:{plain}",
                toml=(int, float),
                original=False,
            )
        )
        self.defaults[plain] = False if metavar is None and default is None else default

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one plugin's hook: if it fails, it has added nothing."""
        added, defaults = list(self._added), dict(self.defaults)
        try:
            yield
        except BaseException:
            self._added, self.defaults = added, defaults
            raise

    def table(self) -> Table:
        """All options, the plugins' included."""
        return Table((*self._core, *self._added))
