"""The domain on the page about libvirt is one by libvirt's schema, and its sockets are those that the page makes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.page_runner import ROOT, blocks

PAGE = (ROOT / "docs" / "how-to" / "exporting" / "libvirt.md").read_text()
NEEDED = ("virt-xml-validate", "xmllint")


def domain() -> str:
    (block,) = [block for block in blocks(PAGE) if block.language == "xml"]
    return block.text


@pytest.mark.parametrize(
    ("old", "new", "valid"), [("", "", True), ("type='vhostuser' device", "type='vhost' device", False)]
)
def test_domain_is_valid_by_libvirt_s_schema(old: str, new: str, valid: bool, tmp_path: Path) -> None:
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        pytest.skip(f"no {', '.join(missing)}: install libvirt-clients and libxml2-utils")
    assert old in domain()
    file = tmp_path / "guest.xml"
    file.write_text(domain().replace(old, new, 1))
    argv = ["virt-xml-validate", str(file), "domain"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode == 0) is valid, result.stderr


def test_sockets_of_the_domain_are_those_of_the_back_ends() -> None:
    exported = re.findall(r"--socket-path=(\S+)", PAGE)
    assert len(exported) == 3
    assert sorted(re.findall(r"/run/\w+\.sock", domain())) == sorted(exported)
