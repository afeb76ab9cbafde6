"""Cards on a loop and on a cable, without a guest, and once with."""

import threading
import time
from collections.abc import Callable

import pytest
from acrn_dm_net_loop import card
from acrn_dm_net_loop.card import LoopCard
from acrn_dm_net_loop.line import Line, Options

from acrn_dm import ConfigError
from acrn_dm.testing import PacketBench, SimMachine

LINK_UP = 1


def frame(number: int) -> bytes:
    return bytes(12) + b"\x88\xb5" + number.to_bytes(2, "big") + bytes(44)


def bench(text: str = "loop", **more: int) -> PacketBench:
    return PacketBench(text, plugins=[card], **more)


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def through(options: Options, count: int) -> list[int]:
    """What arrives of *count* frames, by their numbers."""
    arrived: list[int] = []
    line = Line(options, lambda one, pair: arrived.append(int.from_bytes(one[14:16], "big")))
    for number in range(count):
        line.send(frame(number), 0)
    line.close()
    return arrived


def test_frames_come_back_in_order() -> None:
    with bench() as card:
        for number in range(50):
            assert card.send(frame(number))
        assert [card.receive() for _ in range(50)] == [frame(number) for number in range(50)]


def test_frame_comes_back_by_the_pair_that_sent_it() -> None:
    with bench(pairs=2) as card:
        card.send(frame(1), pair=1)
        assert card.receive(pair=1) == frame(1)


def test_loss_is_a_share_by_the_seed() -> None:
    some = through(Options(loss=0.25, seed=1), 400)
    assert 250 < len(some) < 350
    assert some == sorted(some) == through(Options(loss=0.25, seed=1), 400)
    assert some != through(Options(loss=0.25, seed=2), 400)


def test_duplicates_come_behind_one_another() -> None:
    assert through(Options(duplicate=1), 3) == [0, 0, 1, 1, 2, 2]


def test_frame_is_overtaken_by_the_next_one_and_not_lost() -> None:
    assert through(Options(reorder=1), 6) == [1, 0, 3, 2, 5, 4]
    mixed = through(Options(reorder=0.3), 400)
    assert mixed != sorted(mixed)
    assert len(set(mixed)) >= 399  # the last one may still wait for one to overtake it


def test_delay_keeps_the_order() -> None:
    with bench("loop,delay=5") as card:
        for number in range(5):
            card.send(frame(number))
        assert card.receive(seconds=0) is None
        assert [card.receive() for _ in range(5)] == [frame(number) for number in range(5)]


def test_options_change_while_it_runs() -> None:
    with bench() as card:
        card.driver.control("loss=1, duplicate=0.5")
        card.send(frame(1))
        assert isinstance(card.driver, LoopCard)
        assert comes_true(lambda: card.driver.lost == 1)
        card.driver.control("loss=0,duplicate=0")
        card.send(frame(2))
        assert card.receive() == frame(2)


@pytest.mark.parametrize("text", ["", "loss", "loss=2", "name=x", "loss=0.1;delay=3"])
def test_command_that_means_nothing_is_refused(text: str) -> None:
    with bench() as card, pytest.raises(ValueError):
        card.driver.control(text)


def test_two_cards_of_one_name_hear_one_another_and_not_themselves() -> None:
    with bench("loop,name=lan") as here, bench("loop,name=lan") as there:
        here.send(frame(1))
        there.send(frame(2))
        assert (there.receive(), here.receive()) == (frame(1), frame(2))
        assert here.receive(seconds=0) is None


def test_link_is_up_while_both_ends_are_there() -> None:
    with bench("loop,name=lan") as here:
        assert here.links == [False]
        with bench("loop,name=lan") as there:
            assert there.links == [True]
        assert here.links == [False, True, False]


def test_third_card_of_a_name_is_refused() -> None:
    joined = "two cards are joined by the name 'lan'"
    with bench("loop,name=lan") as here, bench("loop,name=lan"):
        before = list(here.links)
        with pytest.raises(ConfigError, match=joined):
            bench("loop,name=lan")
        assert here.links == before


def test_frames_for_a_card_that_is_full_wait_for_it() -> None:
    with bench() as card:
        sent = threading.Event()

        def flood() -> None:
            for number in range(1000):
                while not card.send(frame(number)):
                    pass
            sent.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert [card.receive() for _ in range(1000)] == [frame(number) for number in range(1000)]
        thread.join()
        assert sent.is_set()


@pytest.mark.parametrize(
    ("text", "said"),
    [("loop,loss=2", "expected 0 to 1"), ("loop,delay=-1", "milliseconds"), ("loop,los=1", "did you mean 'loss'")],
)
def test_wrong_options_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bench(text)


def test_guest_gets_back_what_it_sends() -> None:
    with SimMachine(plugins=[card]) as machine:
        machine.add("virtio-net", "driver=loop", slot=4)
        guest = machine.driver(4)
        guest.start()
        guest.queue(0).send(in_=[2048])
        guest.queue(0).kick()
        guest.queue(1).transfer([bytes(12) + b"\xff" * 6 + frame(7)[6:]])
        done = []
        while not done:
            machine.io_loop("io").step(0.05)
            done = guest.queue(0).completed()
        assert done[0].data[12 : done[0].written] == b"\xff" * 6 + frame(7)[6:]
