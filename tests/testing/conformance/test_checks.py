"""The suite as callables, as plugins call it: a check for each rule, and one assertion for all of them."""

import functools

import pytest

from acrn_dm.testing import CHECKS, SimMachine, assert_device_conforms
from acrn_dm.testing.conformance import checks, conform
from acrn_dm.testing.conformance.checks import RuleCheck
from tests.testing.conformance.samples import Echo, Keeping, build, rule_of


class RaisesInConfig(Echo):
    def read_config(self, offset: int, size: int) -> bytes:
        raise KeyError(offset)


def test_check_is_called_by_the_rows_it_decides() -> None:
    names = [check.__name__ for check in CHECKS]
    assert "split.used.len_bytes_written" in names
    assert len(names) == len(set(names))


def test_check_raises_what_was_seen_and_which_row_says_so() -> None:
    check = RuleCheck(rule_of("dm.lost_chain"))
    check(build(Echo))
    with pytest.raises(AssertionError, match=r"dm\.lost_chain  SHOULD: .*\n.* no chain of any shape came back"):
        check(build(Keeping))


@pytest.fixture
def few_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rules are seconds, and every package's own test."""
    rules = [rule_of("dm.exception"), rule_of("dm.lost_chain"), rule_of("pci.id.vendor")]
    monkeypatch.setattr(checks, "conform", functools.partial(conform, rules=rules))


def test_good_device_passes(few_rules: None) -> None:
    assert_device_conforms(build(Echo))


def test_assertion_names_row_and_exception(few_rules: None) -> None:
    with pytest.raises(AssertionError, match=r"dm\.exception  MUST: .*\n.*KeyError: "):
        assert_device_conforms(build(RaisesInConfig))


def test_machine_that_is_left_with_an_escaped_exception_fails() -> None:
    class Escaping:
        def read(self, offset: int, size: int) -> int:
            raise ZeroDivisionError

        def write(self, offset: int, size: int, value: int) -> None:
            raise ZeroDivisionError

    machine = SimMachine()
    machine.machine.dispatch.pio.register(0x700, 4, Escaping(), "broken")
    machine.start()
    assert machine.vm.pio_read(0x700, 4) == 0xFFFF_FFFF
    with pytest.raises(AssertionError, match="1 accesses"):
        machine.close()
