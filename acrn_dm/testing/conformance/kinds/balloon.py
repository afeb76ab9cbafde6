"""Rules of memory balloons (virtio 5.5)."""

import struct
from collections.abc import Sequence

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.outside.world import Pressure
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import Completion, VirtioDriver

BALLOON = ("balloon",)
MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM, FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING = (1 << bit for bit in range(6))
INFLATE, DEFLATE, STATS, HINTS, REPORTS = range(5)  # queues, 5.5.2
NUM_PAGES_AT, ACTUAL_AT, CMD_ID_AT, POISON_AT = 0, 4, 8, 12
STOP, DONE = 0, 1  # free_page_hint_cmd_id
PAGE = 4096
ENTRY = struct.Struct("<HQ")
SWAP_IN, SWAP_OUT, FREE, TOTAL, NOBODYS = 0, 1, 4, 5, 0xFFFF  # tags of statistics
FILL = b"\xa7"


@attrs.define(eq=False)
class Balloon:
    """A started balloon, and who sets its target."""

    bench: Bench
    driver: VirtioDriver

    @property
    def pressure(self) -> Pressure:
        """Raises NotApplicable."""
        return world(self.bench, Pressure)

    def spare(self) -> Sequence[int]:
        """Addresses of pages that nothing else uses, filled."""
        heap, memory = self.bench.machine.heap, self.bench.machine.memory
        pages = [heap.take(PAGE) for _ in range(4)]
        for gpa in pages:
            memory.write(gpa, FILL * PAGE)
        return pages

    def pages(self, queue: int, gpas: Sequence[int]) -> Completion:
        """Put page numbers into the inflate or deflate queue."""
        done = self.driver.queue(queue).transfer([b"".join(struct.pack("<I", gpa // PAGE) for gpa in gpas)])
        assert done.written == 0, f"{done.written} bytes are written into a request"
        return done

    def field(self, at: int) -> int:
        """le32 of the configuration space."""
        return int.from_bytes(self.driver.read_config(at, 4), "little")

    def statistics(self, *entries: tuple[int, int]) -> None:
        """Give the statistics buffer, as an answer to what was asked."""
        self.driver.queue(STATS).send([b"".join(ENTRY.pack(*entry) for entry in entries)])
        self.driver.queue(STATS).kick()
        self.bench.machine.settle()

    def asked(self) -> bool:
        """Whether the device has returned the statistics buffer, which asks for new ones."""
        return bool(self.bench.collect(self.driver.queue(STATS), 0))


def _balloon(bench: Bench, *, want: int = 0, without: int = 0) -> Balloon:
    return Balloon(bench, started(bench, want=want, without=without))


@rule("d.bal.ack", kinds=BALLOON, over=("transport", "interrupts"))
def requests_are_acknowledged(bench: Bench) -> None:
    b = _balloon(bench)
    pages = b.spare()
    for queue in (INFLATE, DEFLATE, INFLATE):
        b.pages(queue, pages[:1])
        b.pages(queue, pages[1:])


@rule("d.bal.pfn", kinds=BALLOON)
def page_numbers_are_of_4096_bytes(bench: Bench) -> None:
    b = _balloon(bench)
    memory, pages = bench.machine.memory, b.spare()
    b.pages(INFLATE, pages[1:3])
    kept = [memory.read(gpa, PAGE) == FILL * PAGE for gpa in (pages[0], pages[3])]
    assert kept == [True, True], "a page beside those of the balloon changes"
    b.pages(DEFLATE, pages[1:3])
    for gpa in pages[1:3]:
        memory.write(gpa, b"\x11" * PAGE)
        assert memory.read(gpa, PAGE) == b"\x11" * PAGE, "a page that left the balloon is of no use"


@rule("d.bal.cfg", kinds=BALLOON, over=("transport",))
def configuration_says_how_many_pages(bench: Bench) -> None:
    b = _balloon(bench)
    assert b.driver.registers.legacy or bench.config_size >= 8, f"the configuration has {bench.config_size} bytes"
    for pages in (0, 3, 0x0001_0000, 0):
        b.driver.registers.write_config(ACTUAL_AT, 4, pages)
        assert b.field(ACTUAL_AT) == pages, f"actual reads {b.field(ACTUAL_AT)} after {pages} was written"
    before = b.field(NUM_PAGES_AT)
    b.driver.registers.write_config(NUM_PAGES_AT, 4, 0x55)
    assert b.field(NUM_PAGES_AT) == before, "the driver can write num_pages"


@rule("d.bal.num_pages_notify", kinds=BALLOON)
def another_target_is_told(bench: Bench) -> None:
    b = _balloon(bench)
    for pages in (16, 256, 0):
        before = b.driver.config_interrupts
        b.pressure.set_target(pages)
        bench.machine.settle()
        assert b.field(NUM_PAGES_AT) == pages, f"num_pages is {b.field(NUM_PAGES_AT)}, not {pages}"
        assert b.driver.config_interrupts > before, "no configuration change notification"


@rule("balloon.legacy.must_tell_host", kinds=BALLOON, transport="legacy", needs=("MUST_TELL_HOST",))
def legacy_driver_need_not_tell(bench: Bench) -> None:
    b = _balloon(bench, without=MUST_TELL_HOST)
    pages = b.spare()
    b.pages(INFLATE, pages)
    b.pages(DEFLATE, pages)


@rule("balloon.legacy.use_before_notify", kinds=BALLOON, transport="legacy")
def legacy_driver_uses_pages_before_it_tells(bench: Bench) -> None:
    b = _balloon(bench, without=MUST_TELL_HOST)
    memory, pages = bench.machine.memory, b.spare()
    b.pages(INFLATE, pages)
    memory.write(pages[0], b"\x22" * PAGE)
    b.pages(DEFLATE, pages)
    assert memory.read(pages[0], PAGE) == b"\x22" * PAGE, "what the guest wrote before it told the host is lost"


@rule("balloon.legacy.actual_msb", kinds=BALLOON, transport="legacy")
def legacy_actual_counts_with_its_last_byte(bench: Bench) -> None:
    b = _balloon(bench)
    for at, byte in enumerate(b"\x34\x12\x00\x00", ACTUAL_AT):
        b.driver.registers.write_config(at, 1, byte)
    assert b.field(ACTUAL_AT) == 0x1234, f"actual is {b.field(ACTUAL_AT):#x} after it was written byte by byte"


@rule("d.bal.stats_flow", kinds=BALLOON, needs=("STATS_VQ",))
def statistics_are_asked_for(bench: Bench) -> None:
    b = _balloon(bench, want=STATS_VQ)
    b.statistics((FREE, 1000), (TOTAL, 4000))
    assert not b.asked(), "the statistics buffer comes back before anybody asks"
    for free in (2000, 3000):
        b.pressure.ask_statistics()
        bench.machine.settle()
        assert b.asked(), "the statistics buffer does not come back"
        b.statistics((FREE, free), (TOTAL, 4000))
        assert b.pressure.statistics().get(FREE) == free, "the host does not get the statistics"


def _told(bench: Bench, *entries: tuple[int, int]) -> dict[int, int]:
    """What the host learns of a second set of statistics."""
    b = _balloon(bench, want=STATS_VQ)
    b.statistics((FREE, 1), (TOTAL, 2))
    b.pressure.ask_statistics()
    bench.machine.settle()
    assert b.asked(), "the statistics buffer does not come back"
    b.statistics(*entries)
    return b.pressure.statistics()


@rule("balloon.stats.unknown_tag", kinds=BALLOON, needs=("STATS_VQ",))
def unknown_statistics_are_ignored(bench: Bench) -> None:
    told = _told(bench, (FREE, 11), (NOBODYS, 99), (TOTAL, 22), (0x7FFF, 1))
    assert (told.get(FREE), told.get(TOTAL)) == (11, 22), f"the host learns {told}"


@rule("balloon.stats.any_order", kinds=BALLOON, needs=("STATS_VQ",))
def statistics_come_in_any_order(bench: Bench) -> None:
    entries = [(SWAP_IN, 5), (SWAP_OUT, 6), (FREE, 11), (TOTAL, 22)]
    for order in (entries, entries[::-1], entries[2:] + entries[:2]):
        told = _told(bench, *order)
        assert {tag: told.get(tag) for tag, _ in entries} == dict(entries), f"the host learns {told} from {order}"


@rule("balloon.legacy.stats_first", kinds=BALLOON, transport="legacy", needs=("STATS_VQ",))
def legacy_driver_s_first_statistics_are_ignored(bench: Bench) -> None:
    b = _balloon(bench, want=STATS_VQ)
    b.statistics((FREE, 0xDEAD), (TOTAL, 0xBEEF))
    assert 0xDEAD not in b.pressure.statistics().values(), "the first statistics after initialisation are used"


@rule("d.bal.report_ack", kinds=BALLOON, needs=("PAGE_REPORTING",))
def reported_page_can_be_used_again(bench: Bench) -> None:
    b = _balloon(bench, want=PAGE_REPORTING)
    memory, pages = bench.machine.memory, b.spare()
    _report(b, pages[1:3])
    assert memory.read(pages[0], PAGE) == FILL * PAGE, "a page that was not reported changes"
    assert memory.read(pages[3], PAGE) == FILL * PAGE, "a page that was not reported changes"
    for gpa in pages[1:3]:
        memory.write(gpa, b"\x33" * PAGE)
        assert memory.read(gpa, PAGE) == b"\x33" * PAGE, "a reported page is of no use"


@rule("balloon.report.poison", kinds=BALLOON, needs=("PAGE_REPORTING", "PAGE_POISON"))
def reported_page_stays_poisoned(bench: Bench) -> None:
    poison = 0xAA55_AA55
    b = _balloon(bench, want=PAGE_REPORTING | PAGE_POISON)
    b.driver.registers.write_config(POISON_AT, 4, poison)
    memory, pages = bench.machine.memory, b.spare()
    content = struct.pack("<I", poison) * (PAGE // 4)
    for gpa in pages:
        memory.write(gpa, content)
    _report(b, pages)
    for gpa in pages:
        assert memory.read(gpa, PAGE) == content, "a reported page is not what poison_val says"


@rule("balloon.fph.stop", kinds=BALLOON, needs=("FREE_PAGE_HINT",))
def hints_are_off_at_first(bench: Bench) -> None:
    b = _balloon(bench, want=FREE_PAGE_HINT)
    assert b.field(CMD_ID_AT) in (STOP, DONE), f"free_page_hint_cmd_id is {b.field(CMD_ID_AT)} where nobody wants hints"


@rule("balloon.fph.ignore_mismatch", kinds=BALLOON, needs=("FREE_PAGE_HINT",))
def hints_of_another_command_are_ignored(bench: Bench) -> None:
    b = _balloon(bench, want=FREE_PAGE_HINT)
    memory, pages = bench.machine.memory, b.spare()
    b.driver.queue(HINTS).send([struct.pack("<I", b.field(CMD_ID_AT) + 77)])
    _lend(b, HINTS, pages)
    bench.machine.settle()
    for gpa in pages:
        assert memory.read(gpa, PAGE) == FILL * PAGE, "a page that was hinted at under another command changes"


def _report(b: Balloon, pages: Sequence[int]) -> None:
    _lend(b, REPORTS, pages)
    done = list(b.driver.queue(REPORTS).ring.used())
    assert len(done) == 1, f"a report of free pages comes back {len(done)} times"


def _lend(b: Balloon, index: int, pages: Sequence[int]) -> None:
    """Give whole pages as writable buffers: what they hold is not the driver's any more."""
    queue = b.driver.queue(index)
    queue.ring.add_chain([], [(gpa, PAGE) for gpa in pages])
    queue.ring.publish()
    queue.kick(force=True)
    b.bench.machine.settle()
