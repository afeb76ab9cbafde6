"""Rules of entropy devices (virtio 5.4)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import POISON

ENTROPY = ("entropy",)
SIZES = ((1,), (64,), (3, 5, 8), (1, 1, 4096), (4096,))
ENOUGH = 256  # bytes that are the same, or of which few bits are set, once in an age


@rule("rng.at_least_one", kinds=ENTROPY, over=("transport", "interrupts"))
def every_buffer_gets_a_byte_at_least(bench: Bench) -> None:
    queue = bench.start().queue(0)
    for sizes in SIZES:
        done = bench.exchange(queue, Shape(in_=sizes))
        assert 1 <= done.written <= sum(sizes), f"a buffer of {sizes} bytes comes back with {done.written}"
    for _ in range(40):
        queue.send([], [8])
    queue.kick()
    used = [c.written for c in bench.collect(queue, 40)]
    assert [1 <= n <= 8 for n in used] == [True] * 40, f"40 buffers of 8 bytes come back with {used}"


@rule("rng.partial", kinds=ENTROPY)
def bytes_behind_the_used_length_stay(bench: Bench) -> None:
    queue = bench.start().queue(0)
    for sizes in (*SIZES, (300_000,)):
        done = bench.exchange(queue, Shape(in_=sizes))
        rest = done.data[done.written :]
        assert rest == bytes([POISON]) * len(rest), "more is written than the used length says"


@rule("d.rng.fill", kinds=ENTROPY, over=("transport",))
def bytes_are_random(bench: Bench) -> None:
    queue = bench.start().queue(0)
    drawn = []
    for sizes in ((ENOUGH,), (ENOUGH,), (ENOUGH // 2, ENOUGH // 2)):
        data = b""
        while len(data) < ENOUGH:
            done = bench.exchange(queue, Shape(in_=sizes))
            assert 0 < done.written <= len(done.data), f"{done.written} of {len(done.data)} bytes are used"
            data += done.data[: done.written]
        drawn.append(data[:ENOUGH])
    assert len(set(drawn)) == len(drawn), "the same bytes come twice"
    for data in drawn:
        ones = sum(byte.bit_count() for byte in data)
        # 2048 coins: more than eight standard deviations off, or a byte that never stops, is no chance.
        assert abs(ones - 4 * ENOUGH) < 8 * (2 * ENOUGH) ** 0.5, f"{ones} of {8 * ENOUGH} bits are set"
        assert max(data.count(bytes([byte])) for byte in set(data)) < ENOUGH // 8, "one byte fills the buffer"
