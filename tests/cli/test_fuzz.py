"""Whatever is typed or written into a file: understood, or refused as the user's error; never an internal one."""

import contextlib
import io
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm.base.errors import ConfigError
from acrn_dm.cli import main, toml
from acrn_dm.cli.grammar import Table
from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.cli.parse import assemble
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.machine.resolve import resolve_devices
from tests.cli.fakes import DEVICES, FakeMachine, managing

TABLE = Table(OPTIONS)
KINDS = [name.replace("_", "-") for name in DEVICES] + ["toy", "passthru", "npk", "nothing"]

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
PIECES = ["3", "0:3.0", "99", *KINDS, "b", "/x", "tap=t", "stdio", "com1", "com5", "4K", "L2", "level=9"]
pieces = st.sampled_from(PIECES)
values = st.lists(pieces | words, max_size=4).map(",".join)
spellings = st.sampled_from([f"--{o.name}" for o in OPTIONS] + [f"-{letter}" for letter in "AhYvEkrBsmlUGi"])
tokens = spellings | values | st.tuples(spellings, values).map("=".join) | words

scalars = words | st.integers() | st.floats() | st.booleans() | values
toml_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
device_tables = st.dictionaries(
    st.sampled_from(["slot", "type", "options", "boot", "path", "ports", "tap", "size", "label", "discard"]) | words,
    st.sampled_from([*KINDS, 3, "3", "/x"]) | toml_values,
    max_size=5,
)
documents = st.dictionaries(
    st.sampled_from(["name", *TABLE.by_key()]) | words, toml_values, max_size=4
) | st.fixed_dictionaries(
    {"name": st.just("vm"), "device": st.lists(device_tables, max_size=3), "uart": st.lists(device_tables, max_size=1)}
)


def build(config: MachineConfig, plugins: PluginManager) -> FakeMachine:
    resolve_devices(config, plugins)
    return FakeMachine(config=config, plugins=plugins)


@settings(deadline=None)
@given(st.lists(tokens, max_size=6))
def test_no_command_line_is_an_internal_error(args: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*args, "--dry-run"], make_manager=managing(), build=build)
    assert code in (0, 64, 78), err.getvalue()
    lines = err.getvalue().splitlines()
    assert len([line for line in lines if ": warning: " not in line]) <= 1


@settings(deadline=None)
@given(documents)
def test_no_file_is_an_internal_error(table: dict[str, Any]) -> None:
    document = toml.Document(path=Path("vm.toml"), table=table)
    plugins = managing()()
    with contextlib.suppress(ConfigError):
        resolve_devices(assemble([toml.layer(document, TABLE)], {}).config, plugins)
