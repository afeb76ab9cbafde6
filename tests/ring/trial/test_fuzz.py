"""acrn_dm.ring.trial._fuzz: what ``python -m tools.rings.fuzz`` has found worth keeping, once more."""

from pathlib import Path

from acrn_dm.ring.trial._fuzz import RingFuzz

CORPUS = [bytes.fromhex(line) for line in Path(__file__).with_name("corpus.txt").read_text().split()]


def test_no_input_of_the_corpus_makes_a_native_ring_do_wrong() -> None:
    target = RingFuzz()
    assert {data.hex(): wrong for data in CORPUS if (wrong := target.run(data))} == {}


def test_corpus_has_each_format_with_each_feature_and_without() -> None:
    first = [data[0] for data in CORPUS if len(data) > 4]
    assert {(byte & 1, byte & 2) for byte in first} == {(0, 0), (0, 2), (1, 0), (1, 2)}
    assert {(byte & 1, byte & 4) for byte in first} == {(0, 0), (0, 4), (1, 0), (1, 4)}
