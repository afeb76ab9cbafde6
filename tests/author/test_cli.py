"""acrn_dm.author.cli: what is written, what is said, and the exit code."""

import json
from pathlib import Path

import pytest

from acrn_dm.author.cli import main


def test_new_says_what_it_made_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "filler", "--kind", "pci", "--into", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    folder = tmp_path / "acrn-dm-filler"
    assert lines[0] == f"made {folder}: a PCI device with registers, an interrupt and DMA"
    assert all((folder / line.strip()).is_file() for line in lines[1:-1])
    assert lines[-1] == f"next: cd {folder} && pip install -e '.[test]' && pytest"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the program is started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 64, "the following arguments are required: COMMAND; see acrn-dm-plugin --help"),
        (["new"], 64, "the following arguments are required: NAME; see acrn-dm-plugin new --help"),
        (["new", "Edu"], 64, "new: 'Edu': a name is"),
        (["new", "filler", "--kind", "pcy"], 64, "--kind: 'pcy': no such kind; did you mean 'pci'?"),
        (
            ["new", "virtio-blk"],
            78,
            "new: 'virtio-blk': plugin devices.virtio_blk (built in) offers a device of this name",
        ),
        (["new", "kvm", "--kind", "hypervisor"], 78, "offers a hypervisor of this name"),
        (["new", "vhost-user", "--kind", "backend"], 78, "offers a backend of this name"),
        (["check", "no_such_module"], 78, "check: 'no_such_module': no plugin, distribution or module of this name"),
        (["check", "x", "--options", "y"], 64, "--options: 'y': expected DEVICE:TEXT, as in filler:fill=1"),
        (["lst"], 64, "invalid choice: 'lst'"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    args: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    here: Path,
) -> None:
    assert main(args) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("acrn-dm-plugin: ")
    assert said in err
    assert list(here.iterdir()) == []


def test_folder_that_can_not_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["new", "filler", "--into", str(tmp_path / "file")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_list_has_the_built_in_plugins_and_what_they_offer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (lpc,) = (plugin for plugin in shown["plugins"] if plugin["plugin"] == "devices.lpc")
    assert lpc["devices"] == ["lpc"]
    assert lpc["file"].endswith("devices/lpc/__init__.py")


@pytest.mark.parametrize("args", [["--help"], ["new", "--help"], ["list", "--help"], ["check", "--help"]])
def test_help_is_shown(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    assert "acrn-dm-plugin" in capsys.readouterr().out
