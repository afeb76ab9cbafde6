"""The broker of a process without rights: it does what its rules name and nothing else."""

import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from acrn_dm.backends.broker import MAX_PACKET, present
from acrn_dm.backends.broker.client import Broker, employ
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.errors import HostError
from tests.backends.helper.helper_rig import PATIENCE_S
from tests.base.sandbox.sandbox_rig import needs_first


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(tmp_path / "s"))
        one.listen()
        one.settimeout(PATIENCE_S)
        yield one


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = employ({os.fspath(tmp_path / "s"): "vhost-user", os.fspath(tmp_path / "none"): "vfio-user"}, {"d": b"{"})
    yield made
    made.close()


def test_socket_of_the_rules_is_connected_to(broker: Broker, listener: socket.socket, tmp_path: Path) -> None:
    with broker.connect(tmp_path / "s") as ours, listener.accept()[0] as theirs:
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


def test_what_fails_is_told_and_the_next_request_works(broker: Broker, listener: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"connecting to .*none: No such file .*; is the vfio-user process running\?"):
        broker.connect(tmp_path / "none")
    broker.connect(tmp_path / "s").close()


def test_other_sockets_and_devices_are_refused(broker: Broker, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(tmp_path / "other"))
        other.listen()
        with pytest.raises(HostError, match=r"'connect' of '.*other' is none of what this broker does"):
            broker.connect(tmp_path / "other")
    with pytest.raises(HostError, match="'start' of 'e' is none of what this broker does"):
        broker.start("e")


def test_no_process_but_those_that_it_has_started_is_looked_at_or_ended(broker: Broker) -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        for pid in (other.pid, os.getpid(), -1):
            with pytest.raises(HostError, match=f"'kill' of {pid} is none of"):
                broker.kill(pid)
            with pytest.raises(HostError, match=f"'poll' of {pid} is none of"):
                broker.poll(pid)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    "asked",
    [b"x", b"[]", b"{}", b'{"do": "execute", "what": "/bin/true"}', b'{"do": [], "what": {}}', b"[" * MAX_PACKET],
)
def test_request_that_is_none_is_refused(broker: Broker, asked: bytes) -> None:
    broker._socket.send(asked)
    assert b'"error"' in broker._socket.recv(1000)
    assert broker._process.poll() is None


def test_process_is_started_and_its_end_is_heard_of(broker: Broker) -> None:
    """Its order is none, so it ends by itself."""
    started = broker.start("d")
    assert started.ended(PATIENCE_S) == "ended with exit code 1"
    assert started.ended() == "ended with exit code 1"
    started.kill()
    started.close()
    with pytest.raises(HostError, match="'poll' of"):
        broker.poll(started.pid)


def test_device_has_one_process_at_a_time_whoever_asks_for_more(broker: Broker) -> None:
    first = broker.start("d")
    os.kill(first.pid, signal.SIGSTOP)
    with pytest.raises(HostError, match=f"d has a process already, {first.pid}"):
        broker.start("d")
    first.kill()
    assert first.ended(PATIENCE_S) is not None
    first.close()
    second = broker.start("d")
    second.kill()
    assert second.ended(PATIENCE_S) is not None
    second.close()


def test_process_is_killed(broker: Broker) -> None:
    started = broker.start("d")
    os.kill(started.pid, signal.SIGSTOP)
    assert started.ended() is None
    started.kill()
    assert started.ended(PATIENCE_S) in ("was ended by SIGKILL", "ended with exit code 1")
    started.close()


@pytest.fixture
def sleeper() -> Iterator[threading.Thread]:
    """A thread that sleeps."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield thread
    finally:
        done.set()
        thread.join()


@needs_first
def test_as_many_threads_of_the_machine_come_first_as_the_rules_say_and_no_others(sleeper: threading.Thread) -> None:
    thread, main = sleeper.native_id, threading.get_native_id()
    assert thread is not None
    broker = employ({}, {}, 1)
    other = subprocess.Popen(["sleep", "600"])
    try:
        for number in (other.pid, -1, 1 << 70):
            with pytest.raises(HostError, match=f"'first' of {number} is none of"):
                broker.come_first(number)
        broker.come_first(thread)
        broker.come_first(thread)
        assert os.sched_getscheduler(thread) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        assert os.sched_getparam(thread).sched_priority == 1
        with pytest.raises(HostError, match=f"'first' of {main} is none of"):
            broker.come_first(main)
    finally:
        other.kill()
        other.wait()
        broker.close()
    assert os.sched_getscheduler(main) == os.SCHED_OTHER


def test_thread_that_has_ended_makes_room_for_another(sleeper: threading.Thread) -> None:
    with closing(employ({}, {}, 1)) as broker:
        ended = threading.Thread(target=lambda: broker.come_first(threading.get_native_id()))
        ended.start()
        ended.join()
        assert sleeper.native_id is not None
        broker.come_first(sleeper.native_id)


def test_what_pools_were_grown_by_is_told_once(broker: Broker) -> None:
    broker.give_back_pools({})
    with pytest.raises(HostError, match=r"'pools' of .* is none of what this broker does"):
        broker.give_back_pools({2 << 20: 1000})


def test_process_whose_broker_has_ended_is_not_said_to_have_ended(broker: Broker) -> None:
    started = broker.start("d")
    broker._process.kill()
    broker._process.wait(PATIENCE_S)
    assert started.ended(PATIENCE_S) is None, "at once: nobody can tell"
    with pytest.raises(PeerError, match="the broker has ended"):
        started.kill()
    started.close()


def test_descriptors_for_which_there_is_no_room_are_an_error_and_none_is_left(broker: Broker) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 1, limits[1]))  # one of two
    try:
        with pytest.raises(HostError, match="EMFILE"):
            broker.start("d")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    again = os.dup(0)
    os.close(again)
    assert again == first_free


def test_broker_ends_with_the_machine_and_devices_have_none_then() -> None:
    made = employ({}, {})
    assert present() is made
    made.close()
    assert made._process.returncode == 0
    assert present() is None
    with pytest.raises(PeerError, match="the broker has ended"):
        made.poll(1)


def test_broker_that_has_ended_is_told_of(broker: Broker, tmp_path: Path) -> None:
    os.kill(broker._process.pid, signal.SIGKILL)
    broker._process.wait(PATIENCE_S)
    with pytest.raises(HostError, match="the broker"):
        broker.connect(tmp_path / "s")


def test_answer_that_comes_too_late_is_nobody_elses(broker: Broker, listener: socket.socket, tmp_path: Path) -> None:
    broker.connect(tmp_path / "s").close()
    broker._socket.settimeout(0.05)
    os.kill(broker._process.pid, signal.SIGSTOP)
    silent = "the broker has not answered within 0.05 s"
    with pytest.raises(PeerError, match=silent):
        broker.connect(tmp_path / "s")
    os.kill(broker._process.pid, signal.SIGCONT)
    listener.accept()[0].close()
    listener.accept()[0].close()  # it has answered, or is about to
    with pytest.raises(PeerError, match=silent):
        broker.poll(1)
