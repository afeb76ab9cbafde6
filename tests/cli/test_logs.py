"""acrn_dm.cli.logs: levels and destinations of --logger_setting."""

import errno
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.base.files import rotated
from acrn_dm.cli import logs
from acrn_dm.cli.logs import NOTICE, Bounded, KernelLog, logging_to
from acrn_dm.cli.values import LogSettings
from tests.cli.fakes import Cli, FakeMachine, Reason

WORDS = ("error", "warning", "notice", "info", "debug")
LEVELS = (logging.ERROR, logging.WARNING, NOTICE, logging.INFO, logging.DEBUG)
log = logging.getLogger("acrn_dm.some.module")


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_console_level_lets_that_many_kinds_through(capsys: Any, level: int) -> None:
    with logging_to(LogSettings(console=level), None):
        for number in LEVELS:
            log.log(number, "text")
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", level)
    assert err.startswith("acrn-dm: ERROR: text\n")


def test_logging_is_as_before_afterwards() -> None:
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    with logging_to(LogSettings(console=5), None):
        pass
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before


def test_disk_log_has_both_times_and_goes_on_in_the_next_run(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with logging_to(LogSettings(console=1, disk=5), "vm1", tmp_path / "logs"):
            log.debug(text)
    lines = (tmp_path / "logs" / "vm1_log_0").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]
    assert lines[0].endswith("] DEBUG acrn_dm.some.module: first")


def test_disk_log_keeps_eight_files_of_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_SIZE", 200)
    with logging_to(LogSettings(console=1, disk=5), "vm1", tmp_path):
        for number in range(50):
            log.debug("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == [f"vm1_log_{n}" for n in range(8)]
    assert all(f.stat().st_size <= 200 for f in files)
    assert "line 49" in files[0].read_text()


def test_full_disk_stops_nobody_and_tells_stderr_nothing(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """logging's own way prints a traceback for each record, to a pipe that may be full."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with logging_to(LogSettings(console=1, disk=5), "vm1", tmp_path):
        monkeypatch.setattr(rotated.PrivateFiles, "shouldRollover", full)
        log.info("text")
    assert capsys.readouterr().err == ""


def test_disk_logs_are_private_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_SIZE", 200)
    before = os.umask(0)
    try:
        with logging_to(LogSettings(console=1, disk=5), "vm1", tmp_path / "a" / "logs"):
            for number in range(50):
                log.debug("line %d", number)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "a" / "logs").iterdir()} == {0o600}
    assert [stat.S_IMODE((tmp_path / p).stat().st_mode) for p in ("a", "a/logs")] == [0o700, 0o700]


def test_symbolic_link_in_the_place_of_a_log_is_a_warning_and_not_written_through(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "vm1_log_0").symlink_to(tmp_path / "precious")
    with logging_to(LogSettings(console=2, disk=5), "vm1", tmp_path):
        log.error("text")
    assert (tmp_path / "precious").read_text() == "precious"
    assert f"--logger_setting: disk: {tmp_path}/vm1_log_0: Too many levels of symbolic links" in capsys.readouterr().err


def test_control_characters_are_escaped_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "kmsg").touch()
    monkeypatch.setattr(logs, "KMSG", tmp_path / "kmsg")
    with logging_to(LogSettings(console=5, kmsg=5, disk=5), "vm1", tmp_path):
        log.error("guest says %s", "\x1b[2J\x9b\n")
    shown = "guest says \\x1b[2J\\x9b"
    assert (tmp_path / "kmsg").read_text() == f"<3>acrn_dm: {shown}\n"
    assert capsys.readouterr().err == f"acrn-dm: ERROR: {shown}\\n\n"
    assert (tmp_path / "vm1_log_0").read_text().endswith(f"ERROR acrn_dm.some.module: {shown}\\n\n")


def test_errors_that_end_the_program_are_escaped_too(cli: Cli) -> None:
    assert cli("-k", "/k", "-s", "3,virtio-blq,/\x1b[2J", "vm")[2].startswith("acrn-dm: -s 3,virtio-blq,/\\x1b[2J: ")


def test_dry_run_opens_no_log_files(tmp_path: Path) -> None:
    with logging_to(LogSettings(disk=5), None, tmp_path / "logs"):
        log.error("text")
    assert not (tmp_path / "logs").exists()


def test_destination_that_can_not_be_opened_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "logs").write_text("no folder")
    monkeypatch.setattr(logs, "KMSG", tmp_path / "absent")
    with logging_to(LogSettings(kmsg=3, disk=5), "vm1", tmp_path / "logs"):
        log.warning("still here")
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 3
    assert "kmsg" in err[0]
    assert "disk" in err[1]


def test_kernel_log_gets_one_short_line_with_its_priority(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.touch()
    handler = KernelLog(path)
    try:
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "a\nb" + "c" * 1000, None, None))
    finally:
        handler.close()
        handler.close()
    assert path.read_text() == f"<4>acrn_dm: a b{'c' * 253}\n"


def wordy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever machine is built says something at each level, from the main thread and from one of its own."""

    def run(self: FakeMachine) -> Reason:
        for number, name in zip(LEVELS, WORDS, strict=True):
            log.log(number, "%s of the machine", name)
        thread = threading.Thread(target=lambda: log.error("error of a device"))
        thread.start()
        thread.join()
        return Reason.POWEROFF

    monkeypatch.setattr(FakeMachine, "run", run)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 6])
def test_option_sets_how_much_the_console_says(cli: Cli, monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    wordy_machine(monkeypatch)
    code, out, err = cli("--logger_setting", f"console,level={level}", "vm1")
    assert (code, out) == (0, "")
    expected = [f"{word} of the machine" for word in WORDS[:level]] + ["error of a device"]
    assert [line.split(": ", 2)[2] for line in err.splitlines()] == expected


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_option_sets_what_the_kernels_log_gets(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: int
) -> None:
    wordy_machine(monkeypatch)
    assert cli("--logger_setting", f"console,level=1;kmsg,level={level}", "vm1")[2].count("\n") == 2
    lines = (tmp_path / "kmsg").read_text().splitlines()
    expected = [f"<{3 + i}>acrn_dm: {word} of the machine" for i, word in enumerate(WORDS[:level])]
    assert lines == [*expected, "<3>acrn_dm: error of a device"]


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_option_sets_what_the_file_gets(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: int) -> None:
    wordy_machine(monkeypatch)
    assert cli("--logger_setting", f"disk,level={level};console,level=1", "vm1")[2].count("\n") == 2
    lines = (tmp_path / "logs" / "vm1_log_0").read_text().splitlines()
    expected = [f"{word} of the machine" for word in WORDS[:level]] + ["error of a device"]
    assert [line.rpartition(": ")[2] for line in lines] == expected


def test_without_the_option_there_is_the_console_only(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wordy_machine(monkeypatch)
    assert cli("vm1")[2].count("\n") == 4  # errors, warnings, notices
    assert (tmp_path / "kmsg").read_text() == ""
    assert not (tmp_path / "logs").exists()


def test_one_place_in_the_code_can_not_flood_the_log() -> None:
    """A guest that makes a device complain a thousand times a second costs ten lines."""
    now = 0.0
    lines: list[str] = []
    target = logging.Handler()
    target.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    bounded = Bounded([target], clock=lambda: now)
    log.addHandler(bounded)
    try:
        for number in range(1100):
            now += 0.001
            log.warning("complaint %d", number)
            if number % 500 == 0:
                log.error("another place")
    finally:
        log.removeHandler(bounded)
    complaints = [line for line in lines if "complaint" in line]
    assert len(complaints) == 20
    assert complaints[9].endswith("complaint 9")
    assert complaints[10].endswith("complaint 1000 (990 more like this before it were left out)")
    assert sum("another place" in line for line in lines) == 3


def test_debug_records_are_not_bounded(capsys: Any) -> None:
    with logging_to(LogSettings(console=5), None):
        for number in range(100):
            log.debug("detail %d", number)
    assert capsys.readouterr().err.count("detail") == 100


def test_log_file_of_another_machine_of_that_name_is_left_alone_and_said(tmp_path: Path, capsys: Any) -> None:
    settings = LogSettings(console=2, disk=5)
    with logging_to(settings, "vm", tmp_path):
        with logging_to(settings, "vm", tmp_path):
            pass
        logging.getLogger("after").info("still written")
    file = tmp_path / "vm_log_0"
    assert f"--logger_setting: disk: {file}: in use by this process" in capsys.readouterr().err
    assert "still written" in file.read_text()
    with logging_to(settings, "vm", tmp_path):
        logging.getLogger("next").info("free again")
    assert "free again" in file.read_text()
