"""virtio-balloon: the device (virtio 5.5)."""

import struct
from collections.abc import Callable, Sequence

from acrn_dm import (
    Chain,
    Claim,
    CommandLines,
    ConfigError,
    DeviceContext,
    GuestError,
    IoLoop,
    Queue,
    Resources,
    VirtioDevice,
    parse_options,
)
from acrn_dm_balloon.config import PAGE, BalloonConfig, pages_of
from acrn_dm_balloon.pages import Pages, log, page_numbers
from acrn_dm_balloon.roles import DEFLATE_ON_OOM, PAGE_POISON, PAGE_REPORTING, STATS_VQ, Role, roles
from acrn_dm_balloon.stats import MOST, Statistics

QUEUE_SIZE = 128
FIELDS = struct.Struct("<IIII")  # struct virtio_balloon_config: num_pages, actual, free_page_hint_cmd_id, poison_val
ACTUAL, POISON = range(4, 8), range(12, 16)
BATCH = 8  # requests of one queue before other devices on the loop have their turn
MOST_NUMBERS = 4 * 4096  # bytes of page numbers in one request; Linux sends 256 numbers


class BalloonDevice(VirtioDevice):
    """Says how much it wants, takes what comes, gives it to the host."""

    device_id = 5
    pci_class = 0x00FF00
    transitional = True

    def __init__(self, config: BalloonConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self.stats = Statistics()
        self.pages: Pages | None = None  # from realize on
        self.wanted = pages_of(config.size)
        self.actual = 0
        self.poison = 0
        self.reported = 0  # bytes
        self._written = bytearray(8)  # actual and poison_val as far as they are written
        self._features = 0
        self._roles: dict[int, Role] = {}
        self._held: tuple[Queue, Chain] | None = None  # the buffer by whose return statistics are asked for
        self._first_stats = False
        self._begun = False
        self._loop: IoLoop | None = None
        self._lines = CommandLines(self.name, self._execute)

    @property
    def features(self) -> int:
        """Everything but MUST_TELL_HOST, which pages that come back by themselves don't need, and hinting."""
        optional = ((self.config.stats, STATS_VQ), (self.config.deflate_on_oom, DEFLATE_ON_OOM))
        offer = sum(bit for wanted, bit in optional if wanted)
        return offer | (PAGE_REPORTING | PAGE_POISON if self.config.report else 0)

    @property
    def queue_sizes(self) -> Sequence[int]:
        """As many as there are numbers for, up to the last that is used (``roles``)."""
        count = 5 if self.config.report else 3 if self.config.stats else 2
        return (QUEUE_SIZE,) * count

    @property
    def config_size(self) -> int:
        """5.5.4."""
        return FIELDS.size

    @property
    def backend_text(self) -> str:
        """How much it takes at first."""
        return f"{self.config.size >> 20} MiB"

    def check(self) -> list[str]:
        """Whether control and script can be used."""
        return self._lines.check(script=self.config.script, control=self.config.control)

    def claims(self) -> Sequence[Claim]:
        """The control."""
        return self._lines.claims(self.config.control)

    def realize(self, resources: Resources) -> None:
        """Look at the memory, listen. Raises ConfigError and HostError."""
        self.pages = Pages(self.name, resources.memory)
        why = resources.memory.kept_because
        if why is not None:
            log.warning("%s: what the guest gives up does not go back to the host: %s", self.name, why)
        self._check_size(self.config.size)
        self._loop = resources.io_loop("io")
        if self.config.control is not None:
            self._lines.open(self._loop, self.config.control)

    def read_config(self, offset: int, size: int) -> bytes:
        """5.5.4; there is no free page hinting."""
        return FIELDS.pack(self.wanted, self.actual, 0, self.poison)[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver says how much it gave, and with what it fills free pages. A value counts when its last byte has
        come (5.5.6, legacy).
        """
        for at, byte in enumerate(data, offset):
            if at in ACTUAL:
                self._written[at - ACTUAL.start] = byte
            elif at in POISON:
                self._written[4 + at - POISON.start] = byte
        actual, poison = struct.unpack("<II", self._written)
        if offset <= ACTUAL[-1] < offset + len(data):
            self.actual = actual
        if offset <= POISON[-1] < offset + len(data):
            self.poison = poison

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """The driver is there."""
        assert self._loop is not None
        with self._loop.held():
            self._features = features
            self._roles = roles(features)
            self._first_stats = not features >> 32 & 1  # 5.5.6.3.2: a legacy driver's first buffer may be anything
            if not self._begun and self.config.script is not None:
                self._lines.play(self._loop, self.config.script)
            self._begun = True

    def handle_queue(self, queue: Queue) -> None:
        """Pages come or go, statistics have come. Raises GuestError and HostError."""
        serve: dict[Role, Callable[[Queue, Chain], None]] = {
            Role.INFLATE: self._inflate,
            Role.DEFLATE: self._deflate,
            Role.STATS: self._take_stats,
            Role.REPORTS: self._report,
        }
        role = self._roles.get(queue.index)
        for chain in queue.pop_batch(BATCH):
            if role is None:
                raise GuestError(f"a request on queue {queue.index}, which was not negotiated")
            serve[role](queue, chain)

    def stop(self) -> None:
        """The held buffer is the next one's who serves the queue."""
        if self._loop is not None:
            with self._loop.held():
                self._held = None

    def reset(self) -> None:
        """The guest has all its memory again, and has said nothing."""
        self.actual = self.poison = 0
        self._written = bytearray(8)
        self.stats.clear()

    def close(self) -> None:
        """Listen no more."""
        self._lines.close()

    # Queues

    def _inflate(self, queue: Queue, chain: Chain) -> None:
        assert self.pages is not None
        self.pages.discard_numbers(page_numbers(chain.read(MOST_NUMBERS)))
        queue.push(chain)

    def _deflate(self, queue: Queue, chain: Chain) -> None:
        """Nothing is to be done: a page is there again when the guest touches it."""
        queue.push(chain)

    def _take_stats(self, queue: Queue, chain: Chain) -> None:
        data = chain.read(MOST)
        if self._first_stats:
            self._first_stats = False
        elif data:
            self.stats.take(data)
        self._ask_for_stats(flush=False)  # a driver that has two buffers there gets the older one back
        self._held = queue, chain

    def _report(self, queue: Queue, chain: Chain) -> None:
        """Free pages: with PAGE_POISON negotiated they read as the poison afterwards (5.5.6.5), so only zeros go."""
        assert self.pages is not None
        if not (self._features & PAGE_POISON and self.poison):
            for gpa, length in chain.writable_ranges():
                self.reported += self.pages.discard(gpa, length)
        queue.push(chain, 0)

    def _ask_for_stats(self, *, flush: bool) -> None:
        held, self._held = self._held, None
        if held is not None:
            queue, chain = held
            queue.push(chain, 0)
            if flush:
                queue.flush()

    # Lines

    def _execute(self, line: str) -> str:
        verb, _, rest = line.partition(" ")
        verbs: dict[str, Callable[[str], str]] = {"size": self._resize, "info": self._info, "stats": self._show_stats}
        if verb not in verbs:
            raise ValueError(f"{verb}: expected {', '.join(verbs)}, wait")
        return verbs[verb](rest)

    def _resize(self, rest: str) -> str:
        wanted = parse_options(BalloonConfig, f"size={rest.strip().partition(',')[0]}", "size").size
        self._check_size(wanted)
        self.wanted = pages_of(wanted)
        self.config_changed()
        return ""

    def _check_size(self, size: int) -> None:
        """Whether the guest has so much. Raises ConfigError."""
        assert self.pages is not None
        ram = sum(region.size for region in self.pages.memory.regions if not region.owned)
        if size >= ram:
            raise ConfigError(f"the guest has {ram} bytes in all", option="size", value=size)

    def _info(self, rest: str) -> str:
        assert self.pages is not None
        counts = {
            "size": self.wanted * PAGE,
            "actual": self.actual * PAGE,
            "given_back": self.pages.given_back,
            "reported": self.reported,
            "kept": self.pages.kept,
        }
        return " ".join(f"{name}={value}" for name, value in counts.items())

    def _show_stats(self, rest: str) -> str:
        if not self.config.stats:
            raise ValueError("there are none with stats=off")
        text = str(self.stats)
        self._ask_for_stats(flush=True)
        return text
