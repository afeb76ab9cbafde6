"""acrn_dm.base.sandbox.namespaces: which ones a process in a sandbox has, in all of its threads."""

import json
import os

import pytest

from acrn_dm.base.sandbox import _calls, namespaces
from tests.base.sandbox.sandbox_rig import needs_all, run

KINDS = sorted(namespaces.KINDS)
LOOK = f"""
def look():
    return {{kind: os.readlink(f"/proc/thread-self/ns/{{kind}}") for kind in {KINDS}}}
"""
THREAD = f"""
{LOOK}
ready, found = os.eventfd(0), []
thread = threading.Thread(target=lambda: (os.eventfd_read(ready), found.append(look())))
thread.start()
"""
TELL = """
os.eventfd_write(ready, 1)
thread.join()
print(json.dumps([look(), *found]))
"""
DROPPED = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
DUMPABLE = "libc.prctl(4, 1, 0, 0, 0)  # as after execve(2), when that user starts it"


def here() -> dict[str, str]:
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS}


def _root_has_some() -> bool:
    pid = os.fork()
    if not pid:
        try:
            _calls.unshare(sum(namespaces.KINDS.values()))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


root_has_some = pytest.mark.skipif(
    os.geteuid() != 0 or not _root_has_some(), reason="needs root and a kernel that lets it make namespaces"
)


@needs_all
@root_has_some
@pytest.mark.parametrize("mode", ["on", "strict"])
def test_all_threads_have_the_same_ones_which_are_not_the_host_s(mode: str) -> None:
    done = run(mode, TELL, "", THREAD)
    assert done.returncode == 0, done.stderr
    own, another = json.loads(done.stdout)
    assert own == another
    assert [kind for kind in KINDS if own[kind] == here()[kind]] == []


@needs_all
@root_has_some
def test_who_names_ports_keeps_the_network() -> None:
    own, another = json.loads(run("on", TELL, "tcp_ports=[1]", THREAD).stdout)
    assert own == another
    assert [kind for kind in KINDS if own[kind] == here()[kind]] == ["net"]


@needs_all
@root_has_some
def test_user_has_them_by_a_user_namespace_in_which_files_are_his() -> None:
    prepared = f"""
    from acrn_dm.base.sandbox import namespaces
    {DROPPED}
    {DUMPABLE}
    may = namespaces._may()
    namespaces.prepare()
    {{THREAD}}
    """.replace("{THREAD}", THREAD.replace("\n", "\n    "))
    done = run("strict", TELL + "\nprint(json.dumps([may, os.getresuid(), os.getresgid()]))", "", prepared)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    own, another = first
    if not second.pop(0):
        pytest.skip("this kernel lets no user make namespaces")
    assert own == another
    assert [kind for kind in KINDS if own[kind] == here()[kind]] == []
    assert second == [[65534] * 3] * 2


@needs_all
def test_kernel_that_refuses_is_told_of_and_done_without() -> None:
    prepared = """
    import logging
    from acrn_dm.base.sandbox import _calls, namespaces
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    def refuse(flags):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    class Calls:
        unshare = staticmethod(refuse)
    namespaces._calls = Calls
    {LOOK}
    """.replace("{LOOK}", LOOK.replace("\n", "\n    "))
    done = run("strict", "print(json.dumps(look()))", "", prepared)
    assert json.loads(done.stdout) == here()
    assert "test: without namespaces of its own: Operation not permitted" in done.stderr
