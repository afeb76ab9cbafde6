"""The drivers in the how-to pages are as short as they are said to be, and work."""

import importlib.util
import types
from pathlib import Path

import pytest

from acrn_dm.testing import BlockBench, PacketBench, SimMachine
from tests.docs.page_runner import ROOT, blocks

PAGES = ROOT / "docs" / "how-to"


def taken_out(page: str, caption: str, folder: Path) -> types.ModuleType:
    """The file *caption* of a page, as a module."""
    (text,) = [block.text for block in blocks((PAGES / page).read_text()) if block.caption == caption]
    assert len(text.strip().splitlines()) <= 40
    (folder / caption).write_text(text)
    spec = importlib.util.spec_from_file_location(caption.removesuffix(".py"), folder / caption)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ram_disk_of_the_page_is_a_disk(tmp_path: Path) -> None:
    ramdisk = taken_out("block-driver.md", "ramdisk.py", tmp_path)
    with SimMachine(plugins=[ramdisk]) as machine:
        machine.add("virtio-blk", "driver=ramdisk,size=64k,mq=2", slot=4)
        driver = machine.driver(4)
        driver.start()
        assert int.from_bytes(driver.read_config(0, 8), "little") == 128
        data = bytes(range(256)) * 16
        assert driver.queue(0).transfer([b"\1" + bytes(7) + b"\x10" + bytes(7), data], [1]).data == b"\0"
        done = driver.queue(0).transfer([bytes(8) + b"\x10" + bytes(7)], [1000, 3096, 1])
        assert done.data == data + b"\0"
        assert driver.queue(0).transfer([bytes(8) + b"\x80" + bytes(7)], [512, 1]).data[-1:] == b"\1"


def test_filter_of_the_page_counts_and_can_be_told(tmp_path: Path) -> None:
    counting = taken_out("block-driver.md", "counting.py", tmp_path)
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    with BlockBench(f"counting,over={tmp_path / 'disk.img'}", plugins=[counting]) as disk:
        disk.write(0, b"x" * 512, durable=True)
        assert disk.read(0, 512) == b"x" * 512
        assert disk.driver.flushes == 1  # type: ignore[attr-defined]
        disk.driver.control("zero")
        assert disk.driver.flushes == 0  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="expected 'zero'"):
            disk.driver.control("one")


def test_card_of_the_page_hears_itself(tmp_path: Path) -> None:
    echo = taken_out("packet-driver.md", "echo.py", tmp_path)
    with PacketBench("echo,every=2", plugins=[echo]) as card:
        card.send(b"1" * 60)
        card.send(b"2" * 60)
        assert card.receive() == b"2" * 60
        assert card.receive(seconds=0) is None
