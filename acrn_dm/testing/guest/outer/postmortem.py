"""The processors of an outer VM that answers no more, and what they are doing: asked of QEMU, which still does."""

import json
import socket
from collections.abc import Mapping
from typing import TextIO

COMMANDS = ("info status", "info registers -a", "info lapic 0", "info lapic 1", "info pic")
PATIENCE_S = 5.0


def examine(monitor: socket.socket) -> str:
    """What QEMU tells over its control socket, which nobody has spoken on before; says so when that is nothing."""
    try:
        monitor.settimeout(PATIENCE_S)
        with monitor.makefile("rw") as channel:
            channel.readline()  # the greeting
            _ask(channel, "qmp_capabilities")
            told = [_ask(channel, "human-monitor-command", {"command-line": line}) for line in COMMANDS]
    except (OSError, ValueError) as error:
        return f"QEMU's monitor does not answer: {error}\n"
    return "".join(f"(qemu) {line}\n{text}\n" for line, text in zip(COMMANDS, told, strict=True))


def _ask(channel: TextIO, command: str, arguments: Mapping[str, str] | None = None) -> object:
    """The answer to one command; events that come in between are left out."""
    channel.write(json.dumps({"execute": command, "arguments": arguments or {}}) + "\n")
    channel.flush()
    for line in channel:
        answer = json.loads(line)
        if "return" in answer or "error" in answer:
            return answer.get("return", answer.get("error"))
    raise ConnectionError("the monitor closed")
