"""The outer VM's initramfs: loads what the lab needs and goes on to this host's file tree."""

import importlib.metadata
import json
import os
import shlex
import sys
import urllib.parse
from pathlib import Path

from acrn_dm.testing.guest.images import cpio, initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.places import home

AGENT_PORT = "lab.agent"
HERE = Path(__file__).resolve().parent
MODULES = [
    *("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"),
    *("kvm-amd", "tun", "vhost_net", "vhost_vsock", "loop"),
]


def outer_initramfs(kernel: Kernel) -> Path:
    """The file; its init hands over to agent.py on the host's file tree, run by this very Python."""
    agent = [os.path.realpath(sys.executable), "-I", "-S", str(HERE / "agent.py"), AGENT_PORT]
    settings = {
        "LAB": str(home()),
        "AGENT": shlex.join(agent),
        "TMPFS": " ".join(_hideable(["/tmp", "/run"])),
    }
    entries: list[cpio.Entry] = [
        *initramfs.base((HERE / "init.sh").read_text()),
        *initramfs.modules(kernel, MODULES),
        initramfs.settings(settings),
    ]
    return initramfs.store("outer", entries)


def _hideable(directories: list[str]) -> list[str]:
    """Those that a fresh tmpfs may cover: nothing that this Python reads lies below them."""
    own = [sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), str(HERE), os.getcwd()]
    needed = [Path(path).absolute() for path in (*own, *sys.path, *_editable())]
    return [path for path in directories if not any(need.is_relative_to(path) for need in needed)]


def _editable() -> list[str]:
    """The folders of what is installed here in editable mode (PEP 610), which need not be in sys.path."""
    told = [distribution.read_text("direct_url.json") for distribution in importlib.metadata.distributions()]
    origins = [json.loads(text) for text in told if text]
    urls = [origin["url"] for origin in origins if origin.get("dir_info", {}).get("editable")]
    return [urllib.parse.unquote(urllib.parse.urlsplit(url).path) for url in urls]
