"""acrn_dm.devices.terminal.stdio: one user, and files that are shared with others."""

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.devices.terminal.stdio import Terminal


def test_stdio_has_one_user_at_a_time(pty: tuple[int, int]) -> None:
    theirs = pty[1]
    first = Terminal("-l com1", stdin=theirs, stdout=theirs)
    with pytest.raises(ConfigError, match=r"-l com2: 'stdio': .*already used by -l com1"):
        Terminal("-l com2", stdin=theirs, stdout=theirs)
    first.close()
    first.close()
    Terminal("-l com2", stdin=theirs, stdout=theirs).close()


@pytest.mark.parametrize("closed", [{"stdin": 1 << 19}, {"stdout": 1 << 19}])
def test_stdio_that_is_closed_is_a_host_error_and_taken_by_nobody(pty: tuple[int, int], closed: dict[str, int]) -> None:
    theirs = pty[1]
    with pytest.raises(HostError, match="-l com1: opening stdio"):
        Terminal("-l com1", **{"stdin": theirs, "stdout": theirs, **closed})
    Terminal("-l com2", stdin=theirs, stdout=theirs).close()
