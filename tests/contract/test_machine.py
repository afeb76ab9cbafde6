"""What observers are given is the machine, and what adds options is the command line's parser."""

import inspect

from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.cli.plugin_options import OptionParser
from acrn_dm.contract import machine as contract
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.machine.build import build


def test_a_built_machine_is_what_observers_are_promised() -> None:
    machine = build(MachineConfig(hypervisor="sim"), make_plugin_manager(entry_points=False))
    assert isinstance(machine, contract.ObservedMachine)
    machine.close()


def test_the_command_lines_parser_takes_what_plugins_are_promised() -> None:
    promised, given = (inspect.signature(c.add_option) for c in (contract.OptionParser, OptionParser(OPTIONS)))
    assert list(promised.parameters.values())[1:] == list(given.parameters.values())
