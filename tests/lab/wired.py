"""A guest with cards, each on a tap of its host's at whose other end an iperf3 server is."""

import abc
import itertools
import json
from typing import Any

import attrs

CARRIED = 64 << 10  # bytes: some tens of frames. How many in a time is the machine's business, which has other work
PROGRAMS = ["iperf3", "ethtool"]
TRAFFIC_S = 10


@attrs.frozen
class Link:
    """A tap and the guest's card on it."""

    tap: str
    host: str
    guest: str
    card: str = "eth0"
    made_with: str = ""  # a word for ``ip tuntap add``

    @property
    def making(self) -> str:
        """The line that makes the tap."""
        made = f"ip tuntap add dev {self.tap} mode tap {self.made_with} && ip address add {self.host}/30 dev {self.tap}"
        return f"{made} && ip link set {self.tap} up"

    @property
    def removing(self) -> str:
        """The line that removes it, and tells of its offloads before."""
        return f"ethtool -k {self.tap}; ip link delete {self.tap}"


def assert_left_as_it_was(told: str) -> None:
    """The tap that ``Link.removing`` told of has no offloads of the guest's."""
    for offload in ("tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation"):
        assert f"{offload}: off" in told, f"the tap is left with the guest's offloads: {told}"


class Wired(abc.ABC):
    """The guest."""

    @abc.abstractmethod
    def run(self, command: str, timeout: float = 60.0) -> str:
        """What a shell command line prints in it."""

    def connect(self, link: Link) -> None:
        """Give the guest's card its address, if it has none."""
        self.run(f"ip link set {link.card} up && ip address replace {link.guest}/30 dev {link.card}")

    def interrupts(self, name: str) -> list[int]:
        """Interrupts of that name that each of the guest's CPUs took."""
        words = self.run(f"grep {name} /proc/interrupts").split()[1:]
        return [int(word) for word in itertools.takewhile(str.isdigit, words)]

    def ping(self, count: int = 5, *, link: Link) -> str:
        return self.run(f"ping -c {count} -i 0.2 -W 2 {link.host} | grep received")

    def iperf(self, *arguments: str, seconds: int = TRAFFIC_S, link: Link) -> dict[str, Any]:
        """Traffic from the guest's side; iperf3's report."""
        command = f"iperf3 -c {link.host} -t {seconds} -J {' '.join(arguments)}"
        return dict(json.loads(self.run(command, seconds + 60)))
