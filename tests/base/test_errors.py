"""acrn_dm.base.errors: what an error says."""

from acrn_dm.base.errors import HostError


def test_host_error_of_what_has_no_number_says_it_in_words() -> None:
    assert str(HostError.from_os("asking", TimeoutError("timed out"))) == "asking: timed out"
    assert str(HostError.from_os("asking", OSError())) == "asking"
