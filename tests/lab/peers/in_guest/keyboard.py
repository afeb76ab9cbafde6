"""A keyboard of ours in a guest: a key that is typed outside arrives, and the guest's light is seen outside."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path

from tests.lab.peers.exports import connected

KEY, LED, NUM_LOCK, A = 1, 0x11, 0, 30
REPEATED = 2  # a key that is held for a quarter of a second, as the guest's clock goes
SYNC = 0, 0, 0
EVENT = struct.Struct("<16xHHi")
MODULES = ("virtio_input", "evdev")


def keyboard_works(run: Callable[[str], str], control: Path) -> None:
    """*run* does a command in the guest; *control* is the keyboard's socket."""
    named = run("grep -l 'acrn-dm keyboard' /sys/class/input/event*/device/name")
    device = named.split("/")[4]
    with connected(control) as peer:
        listening = "until ls -l /proc/$!/fd | grep -q input/event; do usleep 10000; done"
        run(f"cat /dev/input/{device} > /tmp/events & {listening}")
        peer.sendall(b"type a\n")
        released = EVENT.pack(KEY, A, 0)[16:].hex()
        come = run(
            f"until xxd -p -c {EVENT.size} /tmp/events | grep -q {released}; do usleep 10000; done; "
            "kill $!; xxd -p /tmp/events | tr -d '\\n'"
        )
        events = list(EVENT.iter_unpack(bytes.fromhex(come)))
        assert [event for event in events if event[0] == KEY and event[2] != REPEATED] == [(KEY, A, 1), (KEY, A, 0)]
        assert events[events.index((KEY, A, 1)) + 1] == SYNC, f"a report of its own: {events}"
        for on in (1, 0):
            octets = "".join(f"\\{octet:03o}" for octet in EVENT.pack(LED, NUM_LOCK, on))
            run(f"printf '{octets}' > /dev/input/{device}")
            assert said(peer, b"leds\n", f"numlock={on} ".encode())


def said(peer: socket.socket, asked: bytes, wanted: bytes) -> bool:
    """Whether the answer is that soon: the guest's event takes its way through the queue."""
    answers = b""
    for _ in range(1000):
        peer.sendall(asked)
        answers = peer.recv(1000)
        if wanted in answers:
            return True
    raise AssertionError(answers)
