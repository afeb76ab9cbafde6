"""The I/O request thread that has passed its gate when its client cannot be destroyed."""

import errno
import threading
from typing import Any, cast

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.acrn.module._request_page import RequestPage
from acrn_dm.hypervisors.acrn.module.abi import HSM, Abi, Port
from acrn_dm.hypervisors.acrn.requests import RequestThread


class LatePort:
    """A module whose DESTROY_IOREQ_CLIENT fails, and whose ATTACH is entered only when somebody waits for its end."""

    abi: Abi = HSM

    def __init__(self) -> None:
        self.on_the_way = threading.Event()
        self.awaited = threading.Event()
        self.log: list[str] = []

    def call(self, name: str, argument: Any = 0, *, may_sleep: bool = True) -> int:
        return 1

    def attempt(self, name: str, argument: Any = 0, *, may_sleep: bool = True) -> int:
        if name == "ATTACH_IOREQ_CLIENT":
            self.on_the_way.set()
            self.awaited.wait(10)
            self.log.append(name)
            return -errno.EIO
        return -errno.EINVAL


def test_thread_past_the_gate_attaches_before_end_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would attach to a VM that has been destroyed meanwhile."""
    port = LatePort()
    requests = RequestThread(cast(Port, port), cast(RequestPage, None), vmid=1, vcpus=0, take_events=list)
    join = threading.Thread.join

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        port.awaited.set()
        join(thread, None if timeout is None else max(timeout, 10))

    monkeypatch.setattr(threading.Thread, "join", joined)
    requests.start(cast(Any, None))
    requests.resume()
    assert port.on_the_way.wait(10)
    with pytest.raises(HostError, match="DESTROY_IOREQ_CLIENT"):
        requests.end()
    seen = list(port.log)
    port.awaited.set()
    assert seen == ["ATTACH_IOREQ_CLIENT"]
