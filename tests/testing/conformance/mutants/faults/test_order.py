"""The order of imports: told is what can be imported ahead of a faulty module, and no more."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.testing.conformance.mutants.faults.order import Order


def test_what_is_complete_is_told_and_what_waits_for_the_module_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package waits while it is being imported, and what is in it can't be imported without."""
    (tmp_path / "order_both").mkdir()
    names = {"order_early": "", "order_late": "", "order_both/inner": ""}
    for name, text in {**names, "order_both/__init__": "import order_both.inner, order_early, order_late"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    order = Order({"order_late"})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [order, *sys.meta_path])
    importlib.import_module("order_both")
    (told,) = order.before.values()
    assert "order_early" in told
    assert not {"order_both", "order_both.inner", "order_late"} & set(told)
    for name in ("order_early", "order_late", "order_both", "order_both.inner"):
        del sys.modules[name]
