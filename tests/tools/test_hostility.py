"""The judgement of a process that clients attack."""

import random
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tools.hostility import Attack, Broken, Exporter, Kinds, connected, run

pytestmark = pytest.mark.process


@attrs.frozen
class Left:
    """A client that is told of by whoever left it."""

    dice: random.Random
    kinds: Kinds

    def attack(self, path: Path, meanwhile: Callable[[], None]) -> None:
        with connected(path) as peer:
            if not peer.recv(1):
                raise Broken("a good client was left")


class Idle:
    """A witness that nobody asks."""

    def entropy(self) -> float:
        return 0.0

    def close(self) -> None:
        """Nothing is open."""


def test_how_a_process_ended_is_said_though_its_clients_saw_it_leave_before(tmp_path: Path) -> None:
    attack = Attack(protocol="vfio-user", hostile=Left, witness=lambda path: Idle(), look=lambda *_: None, each=10)
    exporter = Exporter("tests.tools.hurt_exporters.dying", "vfio-user", "edu", tmp_path)
    with pytest.raises(Broken, match="client 0, seed 0: the process ended with 7"):
        run(attack, exporter, 100, 0)


def test_who_is_not_listened_to_says_so(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="nobody listens"):
        connected(tmp_path / "nobody")
