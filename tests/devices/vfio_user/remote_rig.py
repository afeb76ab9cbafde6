"""Functions of ours served as another process would, on a thread of their own; and machines that have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.vfio_user.command import make
from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.testing import SimMachine
from tests.export.vfio_user.vfio_rig import served

SLOT = 6


@contextmanager
def exported(text: str, path: Path) -> Iterator[ExportedFunction]:
    """The function of *text*, as ``acrn-dm-export vfio-user`` serves it at *path*."""
    plugins = make_plugin_manager()
    plugins.load_devices([text.partition(",")[0]])
    function = make(text, plugins, program="test").function
    with served(function, path) as it:
        yield it


@contextmanager
def attached(text: str, path: Path) -> Iterator[SimMachine]:
    """A machine whose function in ``SLOT`` is that of *text*, served at *path*."""
    with exported(text, path), SimMachine() as machine:
        machine.add("vfio-user", f"socket={path}", slot=SLOT)
        yield machine
