"""QEMU's monitor protocol, as far as devices are plugged by it."""

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

SECONDS = 60.0


class Qmp:
    """The monitor at the socket *path*."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._lines.readline()
        self.run("qmp_capabilities")

    def run(self, command: str, **arguments: object) -> Any:
        """What *command* returns; an error fails."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            said = json.loads(self._lines.readline())
            assert "error" not in said, said
            if "return" in said:
                return said["return"]

    def wait(self, event: str, device: str) -> None:
        """Until *event* says *device*; events before it are dropped."""
        while True:
            said = json.loads(self._lines.readline())
            if said.get("event") == event and said["data"].get("device") == device:
                return

    @property
    def memory(self) -> Path:
        """The file of the guest's memory, which is QEMU's and has no other name."""
        peer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        folder = Path(f"/proc/{struct.unpack('iII', peer)[0]}/fd")
        return next(file for file in folder.iterdir() if "memfd:memory-backend" in os.readlink(file))

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
