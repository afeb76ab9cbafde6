"""acrn_dm.cli.logs: levels and destinations of --logger_setting."""

import logging
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.cli import logs
from acrn_dm.cli.logs import NOTICE, Bounded, KernelLog, logging_to
from acrn_dm.cli.values import LogSettings

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
