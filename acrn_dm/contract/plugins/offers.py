"""The offers of all plugins of one kind, by the names that users write.

A record that is wrong is left out alone, a hook that fails with all that it would have offered; ``problems`` has a line
for each. A name that two plugins offer is nobody's until one of them is left out: whoever asks for it is told both.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from acrn_dm.base.errors import AcrnDmError, ConfigError, PluginError
from acrn_dm.base.records import define, frozen
from acrn_dm.contract.plugins import records
from acrn_dm.contract.plugins.guard import faulty
from acrn_dm.contract.types import (
    BackendType,
    BlockDriverType,
    DeviceType,
    HypervisorType,
    PacketDriverType,
    Provenance,
)

R = TypeVar("R", DeviceType, BackendType, HypervisorType, BlockDriverType, PacketDriverType)

Source = tuple[Provenance, Callable[[], object]]  # a plugin, and its implementation of the hook


@frozen
class Offer(Generic[R]):
    """A record and who offers it."""

    record: R
    owner: Provenance


@define(eq=False)
class Offers(Generic[R]):
    """The offers through one hook. ``claims`` has for each name those who offer it, built-in ones first."""

    what: str  # in one word: "device"
    hook: str
    kind: type[R]
    names: Callable[[R], Sequence[str]]
    accepted: list[Offer[R]] = attrs.field(factory=list, init=False)
    claims: dict[str, list[Offer[R]]] = attrs.field(factory=dict, init=False)
    refused: dict[str, PluginError] = attrs.field(factory=dict, init=False)  # by the names that they would have had
    problems: list[PluginError] = attrs.field(factory=list, init=False)

    def collect(self, sources: Iterable[Source]) -> None:
        """Call each plugin's hook, and keep what is right of what it returns."""
        for owner, hook in sources:
            try:
                offered = self._called(hook)
            except BaseException as e:
                self.problems.append(faulty(e, str(owner), self.hook))
                continue
            for record in offered:
                self._consider(record, owner)

    def sort(self, key: Callable[[Provenance], Any]) -> None:
        """Put all that was collected in the order of *key* of who offers it; what one offers stays in its own."""
        for found in itertools.chain([self.accepted], self.claims.values()):
            found.sort(key=lambda offer: key(offer.owner))

    def knows(self, name: str) -> bool:
        """Whether somebody offers *name*, rightly or not."""
        return name in self.claims or name in self.refused

    def get(self, name: str) -> R | None:
        """The record of *name*; None where nobody offers it.

        Raises ConfigError for a name that is offered twice, PluginError for one whose record was refused.
        """
        claimed = self.claims.get(name, ())
        if len(claimed) > 1:
            raise ConfigError(self.contest(name))
        if not claimed and name in self.refused:
            raise self.refused[name]
        return claimed[0].record if claimed else None

    def by_name(self) -> dict[str, R]:
        """The records by all their names; those that are contested are missing."""
        return {name: claimed[0].record for name, claimed in self.claims.items() if len(claimed) == 1}

    def first(self) -> dict[str, R]:
        """As ``by_name``, and what is contested is whose it was first: where the machine chooses, not the user."""
        return {name: claimed[0].record for name, claimed in self.claims.items()}

    def contested(self) -> dict[str, list[Offer[R]]]:
        """The names that more than one record has."""
        return {name: claimed for name, claimed in self.claims.items() if len(claimed) > 1}

    def contest(self, name: str) -> str:
        """One line about the contested *name*: both owners, and what to do."""
        owners = list(dict.fromkeys(offer.owner for offer in self.claims[name]))
        if len(owners) == 1:
            return f"{owners[0]} offers the {self.what} {name!r} twice; its author has to rename one"
        both = " and by ".join(map(str, owners))
        ways = " or ".join(f"--plugins no:{owner.plugin}" for owner in owners)
        return f"the {self.what} {name!r} is offered by {both}; leave one out with {ways}"

    def _called(self, hook: Callable[[], object]) -> list[object]:
        returned = hook()
        if isinstance(returned, self.kind):
            raise TypeError(f"returned one {self.kind.__name__}; write a list of them")
        if isinstance(returned, str) or not isinstance(returned, Iterable):
            raise TypeError(f"returned {type(returned).__name__}, not a list of {self.kind.__name__}")
        return list(returned)

    def _consider(self, record: object, owner: Provenance) -> None:
        if not isinstance(record, self.kind):
            text = f"returned {type(record).__name__}, not {self.kind.__name__}"
            self.problems.append(PluginError(text, provenance=str(owner), hook=self.hook))
            return
        problem = records.problem(record)
        if problem is None:
            self._accept(Offer(record, owner))
            return
        error = PluginError(problem, provenance=str(owner), hook=self.hook)
        self.problems.append(error)
        if isinstance(record.name, str):
            self.refused.setdefault(record.name, error)

    def _accept(self, offer: Offer[R]) -> None:
        self.accepted.append(offer)
        for name in dict.fromkeys(self.names(offer.record)):
            self.claims.setdefault(name, []).append(offer)


def device_names(record: DeviceType) -> Sequence[str]:
    """The names of a kind of device: its own and its aliases."""
    return (record.name, *record.aliases)


def backend_names(record: BackendType) -> Sequence[str]:
    """The names of a backend, one for each kind that it serves: two may share a name and serve different kinds."""
    return tuple(f"{record.name} for {kind}" for kind in record.kinds)


def hypervisor_names(record: HypervisorType) -> Sequence[str]:
    """The name of a hypervisor."""
    return (record.name,)


def driver_names(record: BlockDriverType | PacketDriverType) -> Sequence[str]:
    """The name of a driver."""
    return (record.name,)


def unusable(claim: str, error: AcrnDmError) -> BackendType:
    """A stand-in for a backend that nobody can have: making it raises *error*. *claim* is as of ``backend_names``."""
    name, _, kind = claim.partition(" for ")

    def create(device: object) -> object:
        raise error

    return BackendType(name=name, summary="", kinds=(kind,), create=create)
