"""What the README shows works: its plugin, its test, its commands, its file."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from acrn_dm.cli.app import main
from acrn_dm.cli.shown.help import EXIT_CODES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every shown command, its continuation lines joined."""
    text = "".join(blocks("console")).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


@pytest.fixture
def machine_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    return tmp_path


def test_plugin_and_its_test_work_as_shown(tmp_path: Path) -> None:
    plugin, test = blocks("python")
    (tmp_path / "reverser.py").write_text(plugin)
    (tmp_path / "test_reverser.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_reverser.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_device_of_the_plugin_is_about_twenty_lines() -> None:
    code = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(code) <= 22


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("acrn-dm")])
def test_command_is_understood(command: str, machine_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = shlex.split(command)[1:]
    code = main(argv if "help" in command else ["--dry-run", *argv])
    out, err = capsys.readouterr()
    # What may be missing is on the host: a kernel, a tap, hardware virtualization.
    assert code == 0 or (code == 78 and err.startswith("acrn-dm: ")), err
    assert "Traceback" not in err
    assert out.strip()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make")])
def test_make_target_exists(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_configuration_file_is_understood(machine_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine_files / "vm.toml").write_text(blocks("toml")[0])
    main(["--config", "vm.toml", "--dry-run"])
    out, err = capsys.readouterr()
    assert "512 MiB" in out
    assert "virtio-net" in out
    assert "bzImage" in err  # the one thing that file names and this folder has not, beside the tap


def test_exit_codes_are_those_of_the_help() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert [code for code, _ in rows] == re.findall(r"^  (\d+)", EXIT_CODES, re.MULTILINE)
    for _, meaning in rows:
        assert meaning.replace("`", "") in EXIT_CODES
