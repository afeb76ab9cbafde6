"""The assembler of classic BPF (linux/filter.h) for a filter of system calls: a decision for each call's number.

An instruction is le16 code, u8 jump if true, u8 jump if false, le32 k; jumps count from the next instruction. What is
tested is struct seccomp_data (linux/seccomp.h): number, architecture, address, six arguments.
"""

import struct
from collections.abc import Mapping, Sequence

from acrn_dm.base.sandbox.groups import Check, Checks

INSTRUCTION = struct.Struct("<HBBI")
LOAD, AND, RETURN = 0x20, 0x54, 0x06  # BPF_LD | W | ABS, BPF_ALU | AND | K, BPF_RET | K
JUMP, IF_EQUAL, IF_AT_LEAST = 0x05, 0x15, 0x35  # BPF_JMP with JA, JEQ, JGE; all with K
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_ALLOW, _KILL_PROCESS, _ERRNO
X86_64, X32_BIT = 0xC000003E, 0x40000000  # AUDIT_ARCH_X86_64, __X32_SYSCALL_BIT

Line = tuple[int, int, int, int]


def assemble(decisions: Mapping[int, "Sequence[Checks] | int"], default: int, foreign: int) -> bytes:
    """The program: for each number an action, or the checks of which one must hold for ALLOW; *default* for all else.
    Calls of another architecture end the process, those of x32 get *foreign*.
    """
    leaves = [(number, _leaf(decision, default)) for number, decision in sorted(decisions.items())]
    lines = [
        (LOAD, 0, 0, ARCH),
        (IF_EQUAL, 1, 0, X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (IF_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, foreign),
        *_tree(leaves, default),
    ]
    return b"".join(INSTRUCTION.pack(*line) for line in lines)


def _tree(leaves: Sequence[tuple[int, list[Line]]], default: int) -> list[Line]:
    """A search by halves: each path ends with a RETURN."""
    if not leaves:
        return [(RETURN, 0, 0, default)]
    if len(leaves) == 1:
        number, leaf = leaves[0]
        return [(IF_EQUAL, 1, 0, number), (RETURN, 0, 0, default), *leaf]
    middle = len(leaves) // 2
    low = _tree(leaves[:middle], default)
    return [(IF_AT_LEAST, 0, 1, leaves[middle][0]), (JUMP, 0, 0, len(low)), *low, *_tree(leaves[middle:], default)]


def _leaf(decision: "Sequence[Checks] | int", default: int) -> list[Line]:
    if isinstance(decision, int):
        return [(RETURN, 0, 0, decision)]
    lines: list[Line] = [(RETURN, 0, 0, default)]
    for checks in reversed(decision):
        lines = _alternative(checks, lines)
    return lines


def _alternative(checks: Checks, otherwise: list[Line]) -> list[Line]:
    """ALLOW if all of *checks* hold, else what *otherwise* does."""
    lines: list[Line] = [(RETURN, 0, 0, ALLOW)]
    for check in reversed(checks):
        lines = [*_check(check, len(lines)), *lines]
    return [*lines, *otherwise]


def _check(check: Check, behind: int) -> list[Line]:
    """Lines that fall through if *check* holds, and else go past *behind* more lines."""
    low = ARGUMENTS + 8 * check.arg  # little-endian
    lines: list[Line] = []
    if check.wide:
        rest = behind + 3 + len(check.values)
        lines += [(LOAD, 0, 0, low + 4), (IF_EQUAL, 1, 0, 0), (JUMP, 0, 0, rest)]
    lines += [(LOAD, 0, 0, low), (AND, 0, 0, check.mask)]
    for left in range(len(check.values), 0, -1):
        lines.append((IF_EQUAL, left, 0, check.values[len(check.values) - left]))
    return [*lines, (JUMP, 0, 0, behind)]
