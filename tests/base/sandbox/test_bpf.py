"""The filter's program in a model of the kernel's machine: each number and argument has its decision."""

import errno
import random
import re
import struct
from pathlib import Path

import pytest

from acrn_dm.base.sandbox import bpf, groups, seccomp
from acrn_dm.base.sandbox.groups import Check, Checks
from acrn_dm.base.sandbox.needs import GROUPS, Needs
from acrn_dm.base.sandbox.numbers import NUMBERS

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
EPERM, ENOSYS = bpf.ERRNO | errno.EPERM, bpf.ERRNO | errno.ENOSYS
X86_64, I386 = 0xC000003E, 0x40000003
PID = 4321
LONGEST = 64  # instructions that one call costs, where the kernel does not know the answer by its number


def decide(program: bytes, number: int, *args: int, arch: int = X86_64) -> int:
    """What the filter *program* returns; every jump goes forward and stays inside."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*args, *(0,) * (6 - len(args))))
    lines = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = steps = 0
    while True:
        code, true, false, k = lines[at]
        at += 1
        steps += 1
        assert steps < LONGEST + 20
        if code == bpf.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == bpf.AND:
            accumulator &= k
        elif code == bpf.RETURN:
            return int(k)
        elif code == bpf.JUMP:
            at += k
        elif code == bpf.IF_EQUAL:
            at += true if accumulator == k else false
        else:
            assert code == bpf.IF_AT_LEAST
            at += true if accumulator >= k else false


def holds(checks: Checks, args: tuple[int, ...]) -> bool:
    return all((args[c.arg] & 0xFFFFFFFF & c.mask) in c.values and not (c.wide and args[c.arg] >> 32) for c in checks)


@pytest.mark.parametrize("strict", [False, True])
def test_each_number_has_its_decision(strict: bool) -> None:
    wanted = Needs(groups=["connect"], ioctls=[0x0707])
    program = seccomp.program(wanted, PID, strict=strict)
    rules = groups.rules(wanted, PID, strict=strict)
    names = {number: name for name, number in NUMBERS.items()}
    rng = random.Random(7)
    for number in (*range(600), 0x3FFFFFFF):
        name = names.get(number, "")
        if name in groups.FLAGRANT.split():
            assert decide(program, number) == (bpf.KILL if strict else EPERM), name
        elif name in groups.ABSENT.split():
            assert decide(program, number) == ENOSYS
        else:
            known = [value for checks in rules.get(name, ()) for c in checks for value in c.values] or [0]
            for _ in range(10):
                args = tuple(rng.choice([*known, rng.getrandbits(64), 0, 1 << 32 | known[0]]) for _ in range(6))
                good = any(holds(checks, args) for checks in rules.get(name, ()))
                assert decide(program, number, *args) == (bpf.ALLOW if good else EPERM), (name, args)


@pytest.mark.parametrize("strict", [False, True])
def test_other_architectures_are_refused(strict: bool) -> None:
    program = seccomp.program(Needs(), PID, strict=strict)
    assert decide(program, NUMBERS["read"]) == bpf.ALLOW
    assert decide(program, NUMBERS["read"], arch=I386) == bpf.KILL
    for number in (0x40000000, 0x40000000 | NUMBERS["read"], 0xFFFFFFFF):
        assert decide(program, number) == (bpf.KILL if strict else EPERM)


def test_only_the_low_word_counts_unless_both_do() -> None:
    allowed: tuple[Checks, ...] = (
        (Check(arg=1, values=(5,)), Check(arg=2, values=(0,), wide=True)),
        (Check(arg=0, values=(9,)),),
    )
    program = bpf.assemble({1: allowed}, EPERM, EPERM)
    high = 1 << 32
    assert decide(program, 1, 0, 5, 0) == decide(program, 1, 0, high | 5, 0) == decide(program, 1, 9, 1, 1) == bpf.ALLOW
    assert decide(program, 1, 0, 5, high) == decide(program, 1, 0, 6, 0) == decide(program, 2, 9) == EPERM


def test_namespaces_are_no_threads() -> None:
    program = seccomp.program(Needs(), PID, strict=False)
    thread = 0x3D0F00  # as pthread_create has it
    assert decide(program, NUMBERS["clone"], thread) == bpf.ALLOW
    assert decide(program, NUMBERS["clone"], 17) == EPERM
    for bit in (17, 25, 26, 27, 28, 29, 30):  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
        assert decide(program, NUMBERS["clone"], thread | 1 << bit) == EPERM


def test_no_group_and_no_need_allows_what_is_flagrant() -> None:
    everything = Needs(groups=list(GROUPS), writes=[Path("/tmp")], tcp_ports=[80])
    allowed = groups.rules(everything, PID, strict=False).keys()
    assert not set(allowed) & set(groups.FLAGRANT.split())
    assert not set(allowed) & set(groups.ABSENT.split())


@pytest.mark.skipif(not HEADER.exists(), reason=f"there is no {HEADER}")
def test_numbers_are_the_kernels() -> None:
    text = HEADER.read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    assert {name: number for name, number in NUMBERS.items() if known.get(name, number) != number} == {}
    assert len(NUMBERS.keys() & known.keys()) > 200


def test_program_is_short_enough_for_the_kernel() -> None:
    everything = Needs(groups=list(GROUPS), ioctls=range(100), tcp_ports=[80])
    assert len(seccomp.program(everything, PID, strict=False)) // 8 < 4096


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"groups": ["everything"]}, "groups: 'everything' is none; there are accept, block, children, connect"),
        ({"ioctls": [1 << 32]}, "ioctls: 4294967296 is not from 0 to 4294967295"),
        ({"ioctls": [-1]}, "ioctls: -1 is not"),
        ({"ioctls": range(101)}, "ioctls: at most 100 can be named"),
        ({"tcp_ports": [65536]}, "tcp_ports: 65536 is not from 0 to 65535"),
    ],
)
def test_needs_that_are_none_are_refused(given: dict[str, list[object]], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Needs(**given)  # type: ignore[arg-type]
