"""The block driver ``faults``: stands before another one, and fails, delays or tears what rules say."""

import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence

import attrs

from acrn_dm import BlockDriver, BlockDriverType, BlockFilter, DriverContext, hookimpl, option
from acrn_dm_blk_faults.delays import Delays, Later
from acrn_dm_blk_faults.rules import Armed, Rule, parse

Buffers = Sequence[memoryview]


def _rules(given: object) -> tuple[Rule, ...]:
    texts = (given,) if isinstance(given, str) else given
    if not isinstance(texts, Iterable):
        raise ValueError(f"rule {texts!r}: expected text")
    return tuple(text if isinstance(text, Rule) else parse(str(text)) for text in texts)


@attrs.frozen(kw_only=True)
class Options:
    """The options of a disk with faults."""

    over: str = option(help="The disk below: PATH, or driver=NAME with its options (commas are doubled).")
    rule: tuple[str, ...] = option(
        default=(), help="What happens to which requests: error=EIO:on=write:sectors=8-15:nth=3. The first that fits."
    )
    seed: int = option(default=0, help="Of chance: the same requests in the same order have the same faults.")

    rules: tuple[Rule, ...] = attrs.field(init=False)

    @rules.default
    def _read(self) -> tuple[Rule, ...]:
        return _rules(self.rule)


@attrs.frozen
class Hit:
    """A request that a rule fitted."""

    operation: str
    sector: int
    rule: str


class FaultyDisk(BlockFilter):
    """The disk *over* with faults by rule. ``hits`` has what happened so far, in order."""

    def __init__(self, options: Options, over: BlockDriver) -> None:
        super().__init__(over)
        self.hits: list[Hit] = []
        self._dice = random.Random(options.seed)
        self._armed = [Armed(rule, self._dice) for rule in options.rules]
        self._lock = threading.Lock()
        self._delays = Delays()

    def read(self, offset: int, buffers: Buffers) -> Later:
        """See BlockDriver."""
        return self._through("read", offset, _total(buffers), lambda: self.over.read(offset, buffers))

    def write(self, offset: int, buffers: Buffers) -> Later:
        """See BlockDriver."""
        length = _total(buffers)
        hit = self._hit("write", offset, length)
        if hit is None:
            return self.over.write(offset, buffers)
        armed, kept = hit
        failed = armed.rule.error != 0 and armed.rule.torn is None
        if failed or kept == 0:
            return self._done(armed.rule, None)
        return self._done(armed.rule, self.over.write(offset, _first(buffers, kept)))

    def flush(self) -> Later:
        """See BlockDriver."""
        return self._through("flush", 0, 0, self.over.flush)

    def discard(self, offset: int, length: int) -> Later:
        """See BlockDriver."""
        return self._through("discard", offset, length, lambda: self.over.discard(offset, length))

    def write_zeroes(self, offset: int, length: int, unmap: bool) -> Later:
        """See BlockDriver."""
        return self._through("zeroes", offset, length, lambda: self.over.write_zeroes(offset, length, unmap))

    def control(self, text: str) -> None:
        """``add RULE`` puts a rule behind the others, ``clear`` takes all away, and what waits goes on."""
        word, _, rest = text.strip().partition(" ")
        if word == "add":
            armed = Armed(parse(rest.strip()), self._dice)
            with self._lock:
                self._armed.append(armed)
        elif word == "clear" and not rest:
            with self._lock:
                self._armed.clear()
            self._delays.release()
        else:
            raise ValueError("expected 'add RULE' or 'clear'")

    def close(self) -> None:
        """Close the one below; what waits for its time is let go."""
        self._delays.release()
        super().close()

    def _through(self, operation: str, offset: int, length: int, below: Callable[[], Later]) -> Later:
        hit = self._hit(operation, offset, length)
        if hit is None:
            return below()
        rule = hit[0].rule
        return self._done(rule, below() if rule.error == 0 else None)

    def _hit(self, operation: str, offset: int, length: int) -> tuple[Armed, int] | None:
        """The rule that fits a request, and how many bytes of it are stored."""
        with self._lock:
            for armed in self._armed:
                if armed.takes(operation, offset, length):
                    self.hits.append(Hit(operation, offset // 512, armed.rule.text))
                    return armed, armed.kept(length)
        return None

    def _done(self, rule: Rule, below: Later) -> Later:
        """What the disk is told: the rule's error, or what *below* says, late or at once."""
        error = OSError(rule.error, f"{os.strerror(rule.error)} (rule {rule.text})") if rule.error else None
        if error is not None and below is not None:
            below.result()  # what is stored of it is stored
        if rule.delay:
            return self._delays.after(rule.delay, error) if error else self._delays.behind(below, rule.delay)
        if error is not None:
            raise error
        return below


def _total(buffers: Buffers) -> int:
    return sum(len(view) for view in buffers)


def _first(buffers: Buffers, length: int) -> Sequence[memoryview]:
    """The first *length* bytes."""
    found = []
    for view in buffers:
        found.append(view[:length])
        length -= len(found[-1])
    return [view for view in found if len(view)]


def _create(options: Options, context: DriverContext) -> FaultyDisk:
    return FaultyDisk(options, context.over(options.over))


@hookimpl
def acrn_dm_block_driver_types() -> list[BlockDriverType]:
    """Offer ``faults``."""
    summary = "another disk, with errors, delays and torn writes by rule"
    return [BlockDriverType(name="faults", summary=summary, config=Options, create=_create)]
