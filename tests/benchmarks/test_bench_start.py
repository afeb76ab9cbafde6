"""benchmarks.bench_start: what is counted as memory, and the guest that both programs start."""

from acrn_dm.boot import elf, multiboot
from acrn_dm.boot.files import ImageFile
from benchmarks.bench_start import guest_image, pss

SMAPS = """\
55d0c0000000-55d0c0100000 r-xp 00000000 fe:01 1234   /usr/bin/python3
Rss:                2048 kB
Pss:                1024 kB
7f0000000000-7f0008000000 rw-s 00000000 00:01 99     /memfd:ram (deleted)
Pss:              131072 kB
SwapPss:               8 kB
7f0010000000-7f0010100000 rw-p 00000000 00:00 0
Pss:                 512 kB
"""


def test_memory_is_counted_without_the_guest_s() -> None:
    assert pss(SMAPS) == 1.5


def test_guest_is_a_multiboot_image(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = ImageFile(option="-E", path=tmp_path / "guest.elf", data=guest_image())
    assert multiboot.header_flags(file) == 0
    assert elf.parse(file).bits == 32
