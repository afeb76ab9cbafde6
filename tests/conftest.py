"""For every test: what ``main`` does to its process for good is not done to the one that runs the tests, and whoever
started that one (``nohup``, a script's ``&``) does not decide which signals its children ignore.
"""

import signal
from collections.abc import Iterator

import pytest

from acrn_dm.base.process import privileges

for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def process_keeps_its_privileges() -> Iterator[None]:
    """Of the session, for a fixture of a module may call ``main``, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(privileges, "no_new_privileges", lambda: None)
        yield
