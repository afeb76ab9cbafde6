"""A process of the outer VM that has a program's modules imported and is forked for each of its runs.

``python stem.py DESCRIPTOR MODULE...``. What it forks is a process as ``python -m NAME ARGUMENTS...`` makes:
process 1's child, in a session of its own, with argv, environment, directory and the three files of the order. To
import a device model below two emulations takes as long as to boot a kernel there.

Started and ordered by agent.py, over the socket that DESCRIPTOR is: one JSON object a datagram, which carries the three
files. To it {"argv": ["NAME", ...], "cwd": path, "env": {...} the whole of it}; from it {"pid": N} or {"error": text}.
"""

import gc
import importlib
import json
import os
import runpy
import socket
import sys
from collections.abc import Sequence

ORDER_LIMIT = 1 << 17
FILES = 3


def answer(control: socket.socket, **message: object) -> None:
    control.send(json.dumps(message).encode())


def serve(control: socket.socket) -> list[str] | None:
    """Fork what is ordered until the agent goes. None then; in each process forked, what it is to run."""
    while True:
        order, files, _, _ = socket.recv_fds(control, ORDER_LIMIT, FILES)
        if not order:
            return None
        middle = os.fork()
        if middle == 0:
            return be_forked(control, json.loads(order), files)
        for fd in files:
            os.close(fd)
        os.waitpid(middle, 0)


def be_forked(control: socket.socket, order: dict[str, object], files: Sequence[int]) -> list[str]:
    """Leave the stem: the child of a process that ends is process 1's."""
    pid = os.fork()
    if pid:
        os._exit(0)
    try:
        argv = become(order, files)
    except BaseException as error:
        answer(control, error=str(error) or repr(error))
        os._exit(127)
    answer(control, pid=os.getpid())
    control.close()
    return argv


def become(order: dict[str, object], files: Sequence[int]) -> list[str]:
    """Be as if just executed."""
    argv, cwd, environment = order["argv"], order["cwd"], order["env"]
    assert isinstance(argv, list)
    assert isinstance(cwd, str)
    assert isinstance(environment, dict)
    os.setsid()
    for number, fd in enumerate(files):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = os.getcwd()
    sys.argv[:] = argv
    return argv


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    sys.path[0] = os.getcwd()  # and not this file's directory
    for name in sys.argv[2:]:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("a process with threads can't be forked")
    gc.collect()
    gc.freeze()  # a collection would write to all that is shared with the stem
    argv = serve(control)
    if argv is not None:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
