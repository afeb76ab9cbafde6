"""acrn-dm where no ioeventfd can be registered, as on some hypervisors: every kick is an exit. For ``bench_exit``."""

import sys
from typing import Any

from acrn_dm import hookimpl
from acrn_dm.cli import main
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager


class Veto:
    """A plugin that lets nobody register one."""

    @hookimpl(tryfirst=True)
    def acrn_dm_vhm_ioeventfd(self, vm: object, binding: object, assign: bool) -> bool:
        """No."""
        return False


def make_manager(**choice: Any) -> PluginManager:
    """The plugins of the command line, and this one."""
    return make_plugin_manager(extra=[Veto()], **choice)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], make_manager=make_manager))
