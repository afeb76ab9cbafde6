"""The plugin host: finds plugins, loads each under its own guard, and gives the core checked types instead of hooks.

A plugin that is broken is left out with one line that names it, its distribution and version; only a machine that asks
for what it would have offered does not start.
"""

from acrn_dm.contract.plugins.builtins import BUILTINS
from acrn_dm.contract.plugins.guard import blame
from acrn_dm.contract.plugins.host import PluginManager, make_plugin_manager
from acrn_dm.contract.plugins.offers import Offers

__all__ = ["BUILTINS", "Offers", "PluginManager", "blame", "make_plugin_manager"]
