"""acrn_dm.backends.helper: process=on and restart= among a device's options."""

from typing import Any

import attrs
import pytest

from acrn_dm.backends.helper import Wish, take
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.process.users import User
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.types import Bdf


@attrs.frozen
class Options:
    pass


@attrs.frozen
class Own:
    process: str = ""


def spec(text: str = "", **more: Any) -> DeviceSpec:
    return DeviceSpec(bdf=Bdf(slot=3), kind="toy", text=text, **more)


@pytest.mark.parametrize(
    ("text", "rest", "wish"),
    [
        ("", "", None),
        ("a=1,process=off,b", "a=1,b", None),
        ("a=1,process=on,b", "a=1,b", Wish(restarts=None)),
        ("process=on,restart=never", "", Wish(restarts=0)),
        ("restart=on-failure,process=on", "", Wish(restarts=None)),
        ("restart=on-failure:12,process=on", "", Wish(restarts=12)),
        ("a,sandbox=strict,process=on", "a", Wish(sandbox="strict")),
        ("process=on,sandbox=off", "", Wish(sandbox="off")),
        ("process=on,sandbox=on", "", Wish(sandbox="on")),
        ("a,user=65534:1,process=on", "a", Wish(user=User(text="65534:1", uid=65534, gid=1))),
    ],
)
def test_wish_is_taken_out_of_the_text(text: str, rest: str, wish: Wish | None) -> None:
    left, found = take(spec(text), Options)
    assert (left.text, found) == (rest, wish)


def test_wish_in_a_table() -> None:
    left, found = take(spec(table={"process": True, "restart": "never", "a": 1}), Options)
    assert (left.table, found) == ({"a": 1}, Wish(restarts=0))
    _, found = take(spec(table={"process": True, "sandbox": False}), Options)
    assert found == Wish(sandbox="off")


def test_kind_with_an_option_of_that_name_keeps_it() -> None:
    assert take(spec("process=on"), Own) == (spec("process=on"), None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("process=maybe", "-s 0:3.0,toy process: 'maybe': expected on or off"),
        ("process=on,process=on", "option 'process' is given twice"),
        ("restart=never", "-s 0:3.0,toy restart: 'never': goes with process=on only"),
        ("process=off,restart=never", "goes with process=on only"),
        ("sandbox=on", "-s 0:3.0,toy sandbox: 'on': goes with process=on only"),
        ("process=off,sandbox=off", "-s 0:3.0,toy sandbox: 'off': goes with process=on only"),
        ("process=on,sandbox=loose", "-s 0:3.0,toy sandbox: 'loose': expected on, off or strict"),
        ("process=on,sandbox=", "-s 0:3.0,toy sandbox: '': expected on, off or strict"),
        ("user=65534", "-s 0:3.0,toy user: '65534': goes with process=on only"),
        ("process=on,user=no-such-user", "-s 0:3.0,toy user: 'no-such-user': no such user; expected NAME or UID"),
        ("process=on,user=root", "-s 0:3.0,toy user: 'root': expected a user without the rights of root"),
        ("process=on,restart=always", "'always': expected never, on-failure or on-failure:N"),
        ("process=on,restart=on-failure:0", "expected never, on-failure or on-failure:N"),
        ("process=on,restart=on-failure:", "expected never, on-failure or on-failure:N"),
        ("process=on,restart=on-failure:99999", "expected never, on-failure or on-failure:N"),
    ],
)
def test_wrong_values_are_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        take(spec(text), Options)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("restarts", "policy"), [(None, "restart=on-failure"), (0, "restart=never"), (3, "restart=on-failure:3")]
)
def test_policy_is_told_as_it_is_written(restarts: int | None, policy: str) -> None:
    assert Wish(restarts=restarts).policy == policy
