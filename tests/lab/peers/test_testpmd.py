"""Cards of ours under DPDK's testpmd, which drives them by its own virtio driver on each of that driver's ways.

How many frames go over each way: ``TESTPMD_FRAMES``. A million in all, and more: TESTPMD_FRAMES=112000.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.page_runner import ROOT, lines_for
from tests.lab.peers.packet_ways import (
    IN_MERGED_BUFFERS,
    IN_ONE_BUFFER,
    JUMBO,
    STANDARD,
    Port,
    Way,
    cards_of,
    flags,
    forwarding,
    running,
    serving,
    taps,
    wires,
)

pytestmark = pytest.mark.process

FRAMES = int(os.environ.get("TESTPMD_FRAMES", "10000"))
ETHERNET = 14
GROUPS = {  # of each: its ways, the longest frame, words for testpmd
    "one buffer": (IN_ONE_BUFFER, STANDARD, ()),
    "merged buffers": (IN_MERGED_BUFFERS, JUMBO, (f"--max-pkt-len={JUMBO + 4}", "--enable-scatter")),
}
WAYS = [(group, way) for group, (ways, _, _) in GROUPS.items() for way in ways]
PAGE = ROOT / "docs" / "how-to" / "exporting" / "dpdk.md"
WAYS_OF_THE_PAGE = IN_MERGED_BUFFERS[1:2]
Bench = Mapping[Way, tuple[Port, tuple[str, str]]]


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A group's ways: the card of each, and by what testpmd receives and sends there. All are one testpmd's, and one
    process's of ours.
    """
    all_ways, longest, words = GROUPS[request.param]
    there = flags()
    ways = [way for way in all_ways if not way.needs or way.needs in there]
    folder = tmp_path_factory.mktemp("testpmd")
    with ExitStack() as stack:
        names = stack.enter_context(taps(len(ways), longest - ETHERNET))
        sockets = stack.enter_context(cards_of(names, ways, folder))
        chosen = stack.enter_context(forwarding(ways, sockets, folder / "testpmd.log", *words))
        ports = stack.enter_context(wires(names, ways, longest))
        yield {port.way: (port, by) for port, by in zip(ports, chosen, strict=True)}


@pytest.mark.parametrize(("bench", "way"), WAYS, ids=str, indirect=["bench"], scope="module")
def test_frames_come_back_as_they_went(way: Way, bench: Bench) -> None:
    if way not in bench:
        pytest.skip(f"testpmd has this way on processors with {way.needs} only")
    port, by = bench[way]
    assert by == (way.receives, way.sends)
    port.open()
    port.round_trip(FRAMES)
    assert port.is_silent()


def test_lines_of_the_page_do_the_same(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (tap,) = stack.enter_context(taps(1, STANDARD - ETHERNET))
        made, ours, theirs = lines_for(PAGE.read_text(), "tests/lab/peers/test_testpmd.py")
        assert made.startswith("ip tuntap add mode tap name tap0 && ")
        ours, theirs = (line.replace("/run/", f"{tmp_path}/").replace("=tap0", f"={tap}") for line in (ours, theirs))
        stack.enter_context(serving(shlex.split(ours.rstrip("& "))[1:], tmp_path / "net.sock"))
        stack.enter_context(running([*shlex.split(theirs), "--no-mlockall"], tmp_path / "testpmd.log"))
        (port,) = stack.enter_context(wires([tap], WAYS_OF_THE_PAGE, STANDARD))
        port.open()
        port.round_trip(1000)
        assert port.is_silent()
