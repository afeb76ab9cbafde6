"""The status machine against a model: every transition, modern and legacy (anchor 41: FC PR #5818)."""

import itertools

import pytest

from acrn_dm.virtio.status import next_status

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128


def model(current: int, written: int, acceptable: bool, legacy: bool) -> int:
    """The rules of the module, one bit after the other."""
    if written == 0:
        return 0
    new = {bit for bit in (1, 2, 4, 8, 16, 32, 64, 128) if current & bit}
    for bit in (ACKNOWLEDGE, DRIVER, FAILED):
        if written & bit:
            new.add(bit)
    if written & FEATURES_OK and acceptable and not legacy:
        new.add(FEATURES_OK)
    may_run = (legacy or FEATURES_OK in new) and NEEDS_RESET not in new and FAILED not in new
    if written & DRIVER_OK and may_run:
        new.add(DRIVER_OK)
    return sum(new)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("acceptable", [False, True])
def test_row_41_every_transition_follows_the_model(acceptable: bool, legacy: bool) -> None:
    wrong = []
    for current, written in itertools.product(range(256), range(256)):
        got = next_status(current, written, features_ok=lambda: acceptable, legacy=legacy)
        if got != model(current, written, acceptable, legacy):
            wrong.append((current, written, got))
    assert wrong == []


def test_features_are_judged_only_when_features_ok_becomes_set() -> None:
    def judge() -> bool:
        raise AssertionError("not asked for")

    assert next_status(FEATURES_OK, FEATURES_OK | DRIVER_OK, features_ok=judge) == FEATURES_OK | DRIVER_OK
    assert next_status(ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, features_ok=judge) == ACKNOWLEDGE | DRIVER


def test_no_write_but_zero_clears_a_bit() -> None:
    for current, written in itertools.product(range(256), range(1, 256)):
        assert next_status(current, written, features_ok=lambda: False) & current == current
