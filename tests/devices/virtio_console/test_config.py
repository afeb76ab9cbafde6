"""The option grammar of virtio-console."""

from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.options import from_mapping
from acrn_dm.devices.virtio_console.config import ConsoleConfig, PortConfig


def ports(text: str) -> tuple[PortConfig, ...]:
    return ConsoleConfig.from_string(text).ports


def test_at_sign_makes_a_console() -> None:
    assert ports("@stdio:con,pty:log") == (
        PortConfig(type="stdio", name="con", console=True),
        PortConfig(type="pty", name="log"),
    )


def test_type_is_not_case_sensitive() -> None:
    assert ports("STDIO:con")[0].type == "stdio"


@pytest.mark.parametrize(("text", "role"), [("", "server"), (":server", "server"), (":client", "client")])
def test_socket_is_a_server_unless_told(text: str, role: str) -> None:
    assert ports(f"socket:s=/run/s{text}") == (PortConfig(type="socket", name="s", path=Path("/run/s"), role=role),)


def test_path_may_hold_colons() -> None:
    assert ports("tty:t=/dev/serial/by-path/pci-0000:00")[0].path == Path("/dev/serial/by-path/pci-0000:00")
    assert ports("socket:s=/a:b:client")[0] == PortConfig(type="socket", name="s", path=Path("/a:b"), role="client")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("pty:a", 1),
        ("pty:a,pty:b", 2),
        ("pty:a,max_ports=3,pty:b", 3),
        ("pty:a,max-ports=0x10", 16),
        ("vhost-user=/s", 16),
        ("vhost-user=/s,max_ports=2", 2),
    ],
)
def test_queues_are_for_the_ports_that_are_given_or_asked_for(text: str, ports: int) -> None:
    assert ConsoleConfig.from_string(text).queue_ports == ports


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("pty:p", PortConfig(type="pty", name="p", slow=None)),
        ("pty:p:wait", PortConfig(type="pty", name="p", slow="wait")),
        ("socket:s=/s:client:drop", PortConfig(type="socket", name="s", path=Path("/s"), role="client", slow="drop")),
        ("file:f=/a:wait:x", PortConfig(type="file", name="f", path=Path("/a:wait:x"))),
    ],
)
def test_slow_reader_costs_output_or_time_as_chosen(text: str, config: PortConfig) -> None:
    assert ports(text) == (config,)


@pytest.mark.parametrize(
    "table",
    [
        {"ports": "@pty:a,socket:b=/s:client"},
        {"ports": ["@pty:a", "socket:b=/s:client"]},
        {
            "ports": [
                {"type": "pty", "name": "a", "console": True},
                {"type": "socket", "name": "b", "path": "/s", "role": "client"},
            ]
        },
    ],
)
def test_toml_table_gives_the_same_as_text(table: dict[str, object]) -> None:
    expected = ConsoleConfig.from_string("@pty:a,socket:b=/s:client")
    assert from_mapping(ConsoleConfig, table, "virtio-console") == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "port type"),
        ("stdio", "port name"),
        ("stdio:", "port name"),
        ("serial:a", "serial"),
        ("tty:a", "tty:a=PATH"),
        ("file:a", "file:a=PATH"),
        ("socket:a", "socket:a=PATH"),
        ("socket:a:peer", "peer"),
        ("pty:a:linger", "'linger': expected server, client, drop, wait"),
        ("pty:a,pty:a", "twice"),
        ("stdio:a,stdio:b", "only one"),
        (",".join(f"pty:p{i}" for i in range(17)), "16"),
        ("pty:" + "x" * 65, "64"),
        ("pty:a,max_ports=0", "max_ports=0: expected 1 to 16"),
        ("pty:a,max_ports=17", "max_ports=17: expected 1 to 16"),
        ("pty:a,max_ports=-1", "max_ports=-1: expected 1 to 16"),
        ("pty:a,max_ports=two", "max_ports"),
        ("pty:a,max_ports=", "a value is missing"),
        ("pty:a,max_ports", "a value is missing"),
        ("pty:a,pty:b,max_ports=1", "max_ports=1: 2 ports are given"),
        ("pty:a,max_ports=2,max_ports=2", "given twice"),
        ("max_ports=2", "expected either ports"),
        ("vhost-user=/s,max_ports=17", "max_ports=17: expected 1 to 16"),
    ],
)
def test_wrong_port_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ConsoleConfig.from_string(text)
