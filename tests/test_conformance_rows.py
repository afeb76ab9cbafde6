"""Rows of the virtio specification (their ids in the collected table) that failed once: each has a test of its name.

The name has underscores for the id's dots, ``test_net_mq_limit...`` for ``net.mq.limit``, and the docstring the id.
"""

import pytest

from tests.named_tests import all_tests

IDS = (
    *("feat.accept_valid_subset", "legacy.init.use_before_driver_ok", "pci.common.config_generation"),
    *("d.cfg.generation", "net.mq.limit", "net.rx.gso.needs_csum", "net.rx.gso.size", "d.net.cfg.ro"),
    *("d.net.offloads.mask", "d.blk.status.values", "blk.wce.init0", "blk.legacy.wce_status"),
    *("blk.stable.before_complete.wt", "d.con.open_both", "vsock.feat.no_implied", "net.ctrl.mac.drop"),
)


@pytest.mark.parametrize("row", IDS)
def test_row_that_failed_has_a_test_of_its_name(row: str) -> None:
    name = "test_" + row.replace(".", "_")
    docstrings = {test.name: test.docstring for test in all_tests()}
    named = {test: text for test, text in docstrings.items() if test == name or test.startswith(name + "_")}
    assert named, f"no test is called {name}..."
    assert any(row in text for text in named.values()), f"none of {sorted(named)} has {row} in its docstring"
