"""The program with a console, and a client of our own making."""

import os
from collections.abc import Iterator

import pytest

from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import Client, console_daemon, say, wait_used


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A console's program that has served one client."""
    daemon = console_daemon(tmp_path_factory.mktemp("daemon"))
    daemon.start()
    client = Client.connect(daemon.socket)  # what is opened once for the life of the process
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1)
    say(client, ring, b"first")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)
    client.close()
    yield daemon
    daemon.kill()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    client = Client.connect(daemon.socket)
    yield client
    client.close()
