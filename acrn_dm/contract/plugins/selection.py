"""The selection of plugins: what ``--plugins`` and ``ACRN_DM_PLUGINS`` say."""

from collections.abc import Collection, Iterable, Mapping

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.options import did_you_mean

NO = "no:"


@frozen(kw_only=True)
class Selection:
    """The plugins that are loaded: of the installed ones *only* these (None: all), and of all, built-in ones too, none
    of *without*.

    A plugin goes by its name or, if it is installed, its distribution's. *strict*: a name that nobody has is an error.
    """

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    strict: bool = True
    origin: str = "--plugins"  # for errors

    @classmethod
    def from_words(cls, words: Iterable[str], *, strict: bool = True, origin: str = "--plugins") -> "Selection":
        """Read ``NAME`` (only those) and ``no:NAME`` (all but those). Raises ConfigError when both are there."""
        given = list(words)
        without = frozenset(word.removeprefix(NO) for word in given if word.startswith(NO))
        only = frozenset(word for word in given if not word.startswith(NO))
        if "" in without:
            raise ConfigError("a name is missing behind 'no:'", option=origin)
        if only and without:
            text = "either the names of those to load, or no:NAME for those to leave out"
            raise ConfigError(text, option=origin, value=",".join(given))
        return cls(only=only or None, without=without, strict=strict, origin=origin)

    def takes(self, *names: str) -> bool:
        """Whether an installed plugin that goes by *names* is loaded."""
        wanted = self.only is None or not self.only.isdisjoint(names)
        return wanted and self.without.isdisjoint(names)

    def check(self, installed: Mapping[str, str], builtins: Collection[str]) -> None:
        """Raise ConfigError for a name that no plugin has. *installed* are plugins, each with its distribution."""
        if not self.strict:
            return
        either = {*installed.keys(), *installed.values()}
        for wanted, known in ((self.only or (), either), (self.without, {*either, *builtins})):
            for absent in sorted(set(wanted) - known):
                names = ", ".join(sorted(installed)) or "none"
                text = f"no such plugin is installed; {did_you_mean(absent, sorted(known))}installed: {names}"
                raise ConfigError(text, option=self.origin, value=absent)
