"""Generations of memory: nobody walks a map that changes, and what is in use is given back later."""

import attrs
import pytest

from acrn_dm.memory.generations import Generations
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange, MemoryRegion


@attrs.define(eq=False)
class User:
    """Notes what it is told."""

    said: list[str]
    busy: bool = False

    def leave_map(self) -> None:
        self.said.append("leave")

    def enter_map(self) -> None:
        self.said.append("enter")


@pytest.fixture
def said() -> list[str]:
    return []


def test_users_leave_before_a_change_and_enter_behind_it(said: list[str]) -> None:
    generations = Generations()
    generations.join(User(said))
    with generations.change():
        said.append("change")
    assert said == ["leave", "change", "enter"]


def test_users_enter_once_for_several_changes(said: list[str]) -> None:
    later = []
    generations = Generations(later.append)
    generations.join(User(said))
    for _ in range(2):
        with generations.change():
            pass
    assert said == ["leave", "leave"]
    (enter,) = later
    enter()
    assert said == ["leave", "leave", "enter"]
    with generations.change():
        pass
    assert len(later) == 2


def test_change_that_fails_lets_users_go_on(said: list[str]) -> None:
    generations = Generations()
    generations.join(User(said))
    with pytest.raises(ZeroDivisionError), generations.change():
        raise ZeroDivisionError
    assert said == ["leave", "enter"]


def test_busy_user_keeps_what_was_there(said: list[str]) -> None:
    generations, user = Generations(), User(said, busy=True)
    generations.join(user)
    generations.release(lambda: said.append("first"))
    generations.release(lambda: said.append("second"))
    assert said == []
    user.busy = False
    generations.sweep()
    assert said == ["first", "second"]
    generations.sweep()
    assert said == ["first", "second"]


def test_what_has_buffers_is_given_back_later_and_what_came_behind_it_too(said: list[str]) -> None:
    generations, held = Generations(), [True]

    def close() -> None:
        if held:
            raise BufferError("in use")
        said.append("map")

    generations.release(close)
    generations.release(lambda: said.append("mapping"))
    assert said == []
    held.clear()
    generations.release(lambda: said.append("another"))
    assert said == ["map", "mapping", "another"]


def test_memory_that_is_added_is_another_generation(said: list[str]) -> None:
    memory = GuestMemory.allocate([MemoryRange(gpa=0, size=4096)])
    more = GuestMemory.allocate([MemoryRange(gpa=1 << 20, size=4096)]).regions[0]
    memory.generations.join(User(said))
    memory.add(MemoryRegion(gpa=more.gpa, size=more.size, fd=more.fd, mapping=more.mapping))
    assert said == ["leave", "enter"]
    memory.write(1 << 20, b"x")
    memory.close()
