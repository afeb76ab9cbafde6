"""acrn_dm.base.process.users: who is named, and what of the one who was there is left in the process."""

import grp
import json
import os
import pwd
import re
import subprocess
import sys

import pytest

from acrn_dm.base.process import users
from acrn_dm.base.process.users import User, find
from tests.base import two_threads

NOBODY = pwd.getpwuid(65534)
GROUP = grp.getgrgid(1)
FREE = 54_321_000  # nobody's number
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")

BECOMING = f"""
import json
from acrn_dm.base.process import users
found = {{}}

def look(name):
    found[name] = status("Uid", "Gid", "Groups", "CapEff", "CapPrm")

{two_threads.BEGIN}
os.setgroups([1, 2, 3])
try:
    users.become(users.User(text="x", uid={FREE}, gid={FREE + 1}))
except BaseException:
    __import__("traceback").print_exc()
    os._exit(1)
{two_threads.END}
import xml.sax.handler
try:
    os.setuid(0)
except OSError:
    found["back"] = False
found["dumpable"] = __import__("ctypes").CDLL(None).prctl(3)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("text", "uid", "gid"),
    [
        (NOBODY.pw_name, 65534, NOBODY.pw_gid),
        ("65534", 65534, NOBODY.pw_gid),
        (f"{NOBODY.pw_name}:{GROUP.gr_name}", 65534, 1),
        (f"{NOBODY.pw_name}:{FREE}", 65534, FREE),
        (f"{FREE}:{FREE}", FREE, FREE),
    ],
)
def test_user_is_found_by_name_and_by_number(text: str, uid: int, gid: int) -> None:
    assert find(text) == User(text=text, uid=uid, gid=gid)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no-such-user", "no such user; expected NAME or UID, perhaps with :GROUP behind it"),
        ("", "no such user"),
        ("root", "expected a user without the rights of root"),
        ("0:1", "expected a user without the rights of root"),
        (str(FREE), f"nobody is told of here by this number, so it needs a group: {FREE}:GROUP"),
        (f"{NOBODY.pw_name}:no-such-group", "no such group: 'no-such-group'"),
        (f"{NOBODY.pw_name}:", "no such group: ''"),
        ("4294967295:1", "4294967295 is no number of a user or group"),
        ("-1:1", "no such user"),
    ],
)
def test_nobody_else_is_found(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        find(text)


@needs_root
def test_all_threads_are_that_user_with_no_groups_capabilities_or_way_back(open_python: None) -> None:
    done = subprocess.run([sys.executable, "-c", BECOMING], check=True, timeout=60, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found.pop("back") is False
    assert found.pop("dumpable") != 1  # prctl(2): that user can't attach
    none = ["0" * 16]
    expected = [[str(FREE)] * 4, [str(FREE + 1)] * 4, [], none, none]
    assert found == dict.fromkeys(("asleep", "busy", "main"), expected)


def test_who_is_not_root_can_become_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    user = User(text="x", uid=FREE, gid=FREE)
    assert users.problem(user) == "only root can become another user"
    monkeypatch.setattr(users, "is_already", lambda user: True)
    assert users.problem(user) is None


@needs_root
def test_user_who_can_t_read_the_modules_is_refused(open_python: None) -> None:
    script = f"""
import os
from acrn_dm.base.process import users
users.__file__ = "/root/unreadable.py"
users.become(users.User(text="x", uid={FREE}, gid={FREE}))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True)
    assert "HostError: the user x can't read Python's modules, such as /root/unreadable.py" in done.stderr
