"""Feature tables: well-formed, dependencies, what FEATURES_OK accepts (rows feat.*)."""

import pytest

from acrn_dm.virtio import defs, features
from acrn_dm.virtio.features import ANY_LAYOUT, VERSION_1

CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_ECN, CTRL_VQ, MQ = 1 << 0, 1 << 1, 1 << 7, 1 << 9, 1 << 17, 1 << 22
TABLES = [*features.DEVICE_TABLES.items()]


@pytest.mark.parametrize(("device_id", "own"), TABLES)
def test_table_has_each_bit_and_name_once_and_in_range(device_id: int, own: tuple[features.Feature, ...]) -> None:
    table = features.table(device_id)
    assert len({f.bit for f in table}) == len({f.name for f in table}) == len(table)
    assert all(f.mask & features.DEVICE_BITS for f in own)


@pytest.mark.parametrize("device_id", features.DEVICE_TABLES)
def test_prerequisites_are_bits_of_the_same_table(device_id: int) -> None:
    bits = {f.bit for f in features.table(device_id)}
    for feature in features.table(device_id):
        assert {bit for group in feature.requires for bit in group} <= bits


def test_refusal_none_for_every_closed_subset_of_one_bit() -> None:
    offered = sum(f.mask for f in features.BLOCK) | features.OFFERED_BY_TRANSPORT
    for feature in features.BLOCK:
        assert features.refusal(defs.BLOCK, offered, feature.mask | VERSION_1) is None


@pytest.mark.parametrize(
    ("accepted", "why"),
    [
        (VERSION_1 | 1 << 13, "not offered: HOST_ECN"),
        (VERSION_1 | GUEST_TSO4, "GUEST_TSO4"),
        (VERSION_1 | GUEST_ECN | GUEST_CSUM, "GUEST_ECN"),
        (VERSION_1 | MQ, "MQ"),
        (CSUM, "VERSION_1"),
        (VERSION_1 | 1 << 77, "bit 77"),
    ],
)
def test_refusal_names_what_is_wrong(accepted: int, why: str) -> None:
    offered = VERSION_1 | CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_ECN | CTRL_VQ | MQ
    text = features.refusal(defs.NET, offered, accepted)
    assert text is not None
    assert why in text


def test_alternatives_are_satisfied_by_either_bit() -> None:
    tso6 = 1 << 8
    assert features.unmet(defs.NET, GUEST_CSUM | tso6 | GUEST_ECN) == []
    assert [f.name for f in features.unmet(defs.NET, GUEST_CSUM | GUEST_ECN)] == ["GUEST_ECN"]


def test_prune_drops_whole_dependency_chains() -> None:
    assert features.prune(defs.NET, GUEST_TSO4 | GUEST_ECN | CSUM) == CSUM


def test_offer_problem_for_ring_bits_and_missing_prerequisites() -> None:
    assert features.offer_problem(defs.NET, CSUM) is None
    assert "ANY_LAYOUT" in (features.offer_problem(defs.NET, ANY_LAYOUT) or "")
    assert "MQ" in (features.offer_problem(defs.NET, MQ) or "")


def test_unknown_device_type_has_only_the_rings_rules() -> None:
    assert features.refusal(200, VERSION_1 | 0xFF, VERSION_1 | 0x81) is None


def test_bit_41_belongs_to_the_net_device_where_it_is_not_in_the_ring_table() -> None:
    assert features.names(defs.ENTROPY, 1 << 41) == ["ADMIN_VQ"]


def test_refusal_of_a_driver_without_what_is_mandatory() -> None:
    """i2c.feat.reject."""
    offered = VERSION_1 | 1
    assert "ZERO_LENGTH_REQUEST" in str(features.refusal(defs.I2C, offered, VERSION_1))
    assert features.refusal(defs.I2C, offered, offered) is None


def test_device_that_does_not_offer_what_is_mandatory_is_none() -> None:
    """i2c.feat.offer."""
    assert "mandatory" in str(features.offer_problem(defs.I2C, 0))
    assert features.offer_problem(defs.I2C, 1) is None
