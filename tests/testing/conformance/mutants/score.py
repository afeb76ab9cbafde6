"""The list of mutants and its score.

The faults of the product come first, each in a process that has imported nothing yet that needs the faulty module, and
imports it with the fault; then the wrong devices, in copies of a process that has it all.
"""

import functools
import importlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from tests.testing.conformance.mutants import jobs
from tests.testing.conformance.mutants.faults import core, kinds, notification_data, packed, queue_reset, transport
from tests.testing.conformance.mutants.faults.fault import ProductFault
from tests.testing.conformance.mutants.faults.order import TRIAL, orders
from tests.testing.conformance.mutants.plant import plant

WRONG = (
    "chains",
    "packed",
    "packed_lists",
    "suppression",
    "configuration",
    "lifecycle",
    "negotiation",
    "net",
    "blk",
    "console",
    "packages",
    "functions",
    "in_order",
)
RESET_S = 0.5
FAULTS = (
    *core.FAULTS,
    *queue_reset.FAULTS,
    *notification_data.FAULTS,
    *transport.FAULTS,
    *kinds.FAULTS,
    *packed.FAULTS,
)


@attrs.frozen(kw_only=True)
class Score:
    """One mutant and what became of it."""

    name: str
    rows: tuple[str, ...]
    caught: str = ""  # the id
    words: str = ""  # else: what the suite said instead

    def __str__(self) -> str:
        if self.caught:
            return f"yes  {self.name}: {self.caught}"
        return f"NO   {self.name}: expected {' or '.join(self.rows)}; {self.words}"


def try_fault(fault: ProductFault) -> Any:
    """In a process of its own."""
    planted = plant(fault.edit)
    settle_down()
    trial = importlib.import_module(TRIAL)
    found = trial.trial(fault.how, fault.options, None, fault.rows)
    planted.assert_used()
    return found


def try_device(wrong: Any) -> Any:
    """In a process of its own."""
    settle_down()
    trial = importlib.import_module(TRIAL)
    return trial.trial(wrong.how, wrong.options, wrong.device, wrong.rows)


def settle_down() -> None:
    """The suite hears the log of this process, and nobody else does; a reset that never ends is not waited for as long
    as one that waits for its host.
    """
    logging.getLogger("acrn_dm").propagate = False
    driver = importlib.import_module("acrn_dm.testing.driver")
    driver.RESET_S = RESET_S  # type: ignore[attr-defined]


def wrong_devices() -> list[Any]:
    """All of them; imports the package."""
    for name in (*(f"wrong.{module}" for module in WRONG), "trial"):
        importlib.import_module(f"tests.testing.conformance.mutants.{name}")
    registry = importlib.import_module("tests.testing.conformance.mutants.registry")
    return list(registry.wrong_devices())


def score(names: Sequence[str]) -> Iterable[Score]:
    """Try those mutants whose name contains one of *names*, or all."""
    chosen = {f.name: f for f in FAULTS if _wanted(f.name, names)}
    for name, found in jobs.run(_trials(chosen)):
        yield _scored(name, chosen[name].rows, found)
    devices = {w.name: w for w in wrong_devices() if _wanted(w.name, names)}
    for name, found in jobs.run((n, functools.partial(try_device, w)) for n, w in devices.items()):
        yield _scored(f"{name}: {devices[name].fault}", devices[name].rows, found)


def _trials(faults: Mapping[str, ProductFault]) -> Iterator[tuple[str, jobs.Job]]:
    """Those of modules that are imported early first: before each, this process imports what was complete by then. To
    import the package takes longer than a trial does.
    """
    ((_, before),) = jobs.run([("order", functools.partial(orders, {fault.edit.module for fault in faults.values()}))])
    for name, fault in sorted(faults.items(), key=lambda item: len(before[item[1].edit.module])):
        for module in before[fault.edit.module]:
            importlib.import_module(module)
        yield name, functools.partial(try_fault, fault)


def _wanted(name: str, names: Sequence[str]) -> bool:
    return not names or any(part in name for part in names)


def _scored(name: str, rows: tuple[str, ...], found: Any) -> Score:
    if isinstance(found, str):
        return Score(name=name, rows=rows, words=found)
    if "caught" in found:
        return Score(name=name, rows=rows, caught=found["caught"], words=found["text"])
    said = "; ".join(f"{row} ({text[:300]})" for row, text in found["wrong"].items())
    return Score(name=name, rows=rows, words=(said or "nothing fails") + f"; judged by {found['rules'] or 'no rule'}")


def main(arguments: Sequence[str]) -> int:
    """Print the list as it comes and the score."""
    begin = time.monotonic()
    scores = []
    for one in score([a for a in arguments if not a.startswith("-")]):
        scores.append(one)
        print(one, flush=True)
    caught = sum(bool(one.caught) for one in scores)
    print(f"{caught} of {len(scores)} mutants caught by the right rule in {time.monotonic() - begin:.0f} s")
    return int(caught != len(scores))
