"""The run: which rules judge a device, in which setups, and what their judgements come to."""

import logging
import threading
from collections.abc import Sequence

import pytest

from acrn_dm import GuestError
from acrn_dm.testing.conformance import Bench, NotApplicable, Outcome, Rule, Subject, conform, rule
from acrn_dm.testing.conformance.not_tested import NOT_IMPLEMENTED, NOT_TESTABLE, find
from acrn_dm.testing.conformance.run import RULES, applicable, concerned
from acrn_dm.testing.conformance.table import rows
from acrn_dm.virtio.queue import Queue
from tests.testing.conformance.samples import Echo, Keeping, Make, build


def made(check: object, row: str = "dm.pause", **options: object) -> Rule:
    """A rule that is only this test's."""
    return rule(row, **options)(check)  # type: ignore[arg-type]


def outcome(make: Make, *rules: Rule, row: str = "dm.pause", **options: object) -> tuple[Outcome, str]:
    report = conform(build(make), rules=rules, formats=("split",), **options)  # type: ignore[arg-type]
    verdict = next(v for v in report.verdicts if v.row.id == row)
    return verdict.outcome, verdict.text


def fails(bench: Bench) -> None:
    raise AssertionError("seen")


def passes(bench: Bench) -> None:
    bench.start()


def says_nothing(bench: Bench) -> None:
    raise NotApplicable("no reason")


def test_every_row_has_a_rule_or_a_reason_why_not() -> None:
    ruled = {row for rule in RULES for row in rule.ids}
    left = [row for row in rows().values() if row.id not in ruled]
    assert [row.id for row in left if not (find(row, NOT_IMPLEMENTED) or find(row, NOT_TESTABLE))] == []


def test_row_has_no_reason_beside_its_rule() -> None:
    ruled = [row for rule in RULES for row in rule.ids]
    named = [row for row in (*ruled, *NOT_IMPLEMENTED, *NOT_TESTABLE) if not row.endswith("*")]
    assert sorted(named) == sorted(set(named))


def test_reason_for_a_row_that_is_not_there_is_stale() -> None:
    keys = [*NOT_IMPLEMENTED, *NOT_TESTABLE]
    stale = [key for key in keys if not any(row == key or row.startswith(key.removesuffix("*")) for row in rows())]
    assert stale == []


def test_rule_that_raises_fails_its_row_with_what_was_seen_and_the_setup() -> None:
    assert outcome(Echo, made(fails)) == (Outcome.FAILED, "modern split msix pairs=1: seen")
    assert outcome(Echo, made(passes)) == (Outcome.PASSED, "")
    assert outcome(Echo, made(says_nothing)) == (Outcome.NOT_APPLICABLE, "no reason")


def test_rule_that_stumbles_over_what_no_device_shows_fails() -> None:
    def stumbles(bench: Bench) -> None:
        bench.modern.read("nosuch")

    assert outcome(Echo, made(stumbles)) == (Outcome.FAILED, "modern split msix pairs=1: KeyError: 'nosuch'")


def test_rule_runs_in_each_setup_it_asks_for() -> None:
    seen = []
    outcome(Echo, made(lambda bench: seen.append(str(bench.setup)), over=("transport", "interrupts")))
    assert seen == [
        f"{transport} split {interrupts} pairs=1"
        for transport in ("modern", "legacy")
        for interrupts in ("msix", "msi", "intx")
    ]


def test_row_fails_if_one_setup_does() -> None:
    def fails_by_pin(bench: Bench) -> None:
        if bench.setup.interrupts == "intx":
            raise AssertionError("no level")

    found = outcome(Echo, made(fails_by_pin, over=("interrupts",)))
    assert found == (Outcome.FAILED, "modern split intx pairs=1: no level")


def test_rule_for_legacy_says_nothing_about_a_modern_device() -> None:
    class Modern(Echo):
        transitional = False

    found = outcome(Modern, made(fails, transport="legacy"))
    assert found == (Outcome.NOT_APPLICABLE, "there is no legacy to use")


def test_rule_for_a_feature_says_nothing_where_it_is_not_offered() -> None:
    found = outcome(Echo, made(fails, needs=("SR_IOV",)))
    assert found == (Outcome.NOT_APPLICABLE, "SR_IOV is not offered")


def test_reason_excuses_what_a_device_should_do_and_not_what_it_must() -> None:
    should, must = made(fails, "dm.lost_chain"), made(fails, "dm.pause")
    found = outcome(Echo, should, row="dm.lost_chain", reasons={"dm.lost_chain": "keeps them"})
    assert found == (Outcome.NOT_APPLICABLE, "excused: keeps them")
    assert outcome(Echo, must, reasons={"dm.pause": "no wish"})[0] is Outcome.FAILED


def test_device_lists_its_reasons_itself() -> None:
    class Excused(Keeping):
        conformance_reasons = {"dm.lost_chain": "waits for its other side"}

    found = outcome(Excused, made(fails, "dm.lost_chain"), row="dm.lost_chain")
    assert found == (Outcome.NOT_APPLICABLE, "excused: waits for its other side")


def test_rules_and_rows_of_another_kind_are_left_out() -> None:
    subject = Subject(build=build(Echo))
    subject.look()
    assert {name for rule in applicable(subject) for name in rule.kinds} <= {"any"}
    assert {row.kind for row in concerned("")} == {""}
    assert {row.kind for row in concerned("net")} == {"", "net"}
    assert {row.kind for row in concerned("pci")} <= {"pci"}


# What a device raises, whatever the rule is about


class RaisesInHandle(Echo):
    def handle_queue(self, queue: Queue) -> None:
        raise ZeroDivisionError("in handle_queue")


class RaisesInStop(Echo):
    def stop(self) -> None:
        raise KeyError("in stop")


class RaisesInReset(Echo):
    def reset(self) -> None:
        raise KeyError("in reset")


class RaisesInWrite(Echo):
    def write_config(self, offset: int, data: bytes) -> None:
        raise KeyError("in write_config")


class RaisesInStart(Echo):
    def start(self, features: int, queues: Sequence[Queue]) -> None:
        raise KeyError("in start")


class RaisesInThread(Echo):
    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        thread = threading.Thread(target=self.work)
        thread.start()
        thread.join()

    def work(self) -> None:
        raise KeyError("in a thread")


class BlamesItsDriver(Echo):
    def handle_queue(self, queue: Queue) -> None:
        raise GuestError("no such request")


def uses(bench: Bench) -> None:
    """Every method, and nothing is asserted."""
    driver = bench.driver()
    driver.start()
    driver.registers.write_config(0, 1, 0)
    driver.queue(0).send([b"x"], [1])
    driver.queue(0).kick(force=True)
    bench.machine.settle()
    driver.reset()


@pytest.mark.parametrize(
    "make", [RaisesInHandle, RaisesInStop, RaisesInReset, RaisesInWrite, RaisesInStart, RaisesInThread]
)
def test_exception_out_of_a_device_fails_whatever_the_rule_was(make: type[Echo]) -> None:
    found, text = outcome(make, made(uses), row="dm.exception")
    assert found is Outcome.FAILED
    assert "Error: " in text
    assert "(during dm.pause)" in text


def test_exception_is_heard_though_the_log_is_silenced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL + 1, "acrn_dm"):
        assert outcome(RaisesInReset, made(uses), row="dm.exception")[0] is Outcome.FAILED
    assert logging.getLogger("acrn_dm").level <= logging.CRITICAL + 1


def test_guest_error_is_the_drivers_fault() -> None:
    assert outcome(BlamesItsDriver, made(uses), row="dm.exception")[0] is not Outcome.FAILED
