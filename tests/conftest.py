"""For every test: what ``main`` does to its process for good is not done to the one that runs the tests, and whoever
started that one (``nohup``, a script's ``&``) does not decide which signals its children ignore.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.process import privileges
from acrn_dm.memory.hugepages import HugePages
from acrn_dm.testing.driver import rings
from tests.memory.real_pools import pages_alone
from tests.open_python import opened
from tests.process_state import state

for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def process_keeps_its_privileges() -> Iterator[None]:
    """Of the session, for a fixture of a module may call ``main``, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(privileges, "no_new_privileges", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def process_stays_as_it_is() -> Iterator[None]:
    """A test that, say, left its thread with SCHED_FIFO would have all later ones starve the threads they wait for."""
    before = state()
    yield
    assert state() == before


@pytest.fixture
def real_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HugePages]:
    """The host's pools of huge pages."""
    with pages_alone(tmp_path_factory.getbasetemp().parent / "pools") as made:  # one file for all that run tests
        yield made


@pytest.fixture
def open_python(tmp_path: Path) -> Iterator[None]:
    """Other users can read this Python's modules, wherever they are."""
    with opened(tmp_path / "modules"):
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``both_formats``: once with split rings and once with packed ones, which is left to ``make test`` unless *fast*.
    ``split_rings`` among them says why it is not.
    """
    marker = metafunc.definition.get_closest_marker("both_formats")
    if marker is None:
        return
    packed = pytest.param("packed", marks=[] if marker.kwargs.get("fast") else [pytest.mark.stress])
    alone = metafunc.definition.get_closest_marker("split_rings") is not None
    metafunc.parametrize("ring_form", ["split"] if alone else ["split", packed], indirect=True, scope="module")


@pytest.fixture(autouse=True, scope="module")
def ring_form(request: pytest.FixtureRequest) -> Iterator[str]:
    """The format of the rings of drivers that do not choose one."""
    form = getattr(request, "param", "split")
    with rings(form):
        yield form
