"""The order of imports: what a process has imported to the end when it begins with one of some modules."""

import importlib
import sys
import types
from collections.abc import Collection, Sequence
from importlib.abc import MetaPathFinder

import attrs

TRIAL = "tests.testing.conformance.mutants.trial"


@attrs.define(eq=False)
class Order(MetaPathFinder):
    """A finder that finds nothing: it looks what is complete where one of *modules* is wanted for the first time."""

    modules: Collection[str]
    before: dict[str, list[str]] = attrs.field(factory=dict)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> None:
        """None, so that those after it are asked."""
        if fullname in self.modules:
            self.before.setdefault(fullname, [name for name in sys.modules if complete(name)])


def complete(name: str) -> bool:
    """Whether it can be imported without one that is being imported now: neither it nor a package around it is."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    package = name.rpartition(".")[0]
    return spec is not None and not getattr(spec, "_initializing", False) and (not package or complete(package))


def orders(modules: Collection[str]) -> dict[str, list[str]]:
    """For each of *modules*, what was complete before it, when a trial is imported behind the devices, of which most
    faulty modules know nothing; for a process of its own.
    """
    order = Order(modules)
    sys.meta_path.insert(0, order)
    for module in (*importlib.import_module("acrn_dm.contract.plugins.builtins").BUILTINS.values(), TRIAL):
        importlib.import_module(module)
    return {module: order.before.get(module, []) for module in modules}
