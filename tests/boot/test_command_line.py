"""The kernel command line."""

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot import command_line


def test_line_ends_with_nul() -> None:
    assert command_line.encode("console=ttyS0") == b"console=ttyS0\0"


def test_2047_bytes_are_taken_and_2048_refused() -> None:
    assert len(command_line.encode("x" * 2047)) == 2048
    with pytest.raises(ConfigError, match=r"^-B: .*2048 bytes.*at most 2047"):
        command_line.encode("x" * 2048)


def test_kernels_own_limit_counts() -> None:
    with pytest.raises(ConfigError, match="at most 255"):
        command_line.encode("x" * 256, 255)


def test_nul_inside_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        command_line.encode("a\0b")


def test_bytes_from_argv_pass_unchanged() -> None:
    assert command_line.encode("x=\udcff") == b"x=\xff\0"
