"""``pytest --acrn-dm-conform PACKAGE:DEVICE``: each row of the conformance suite a test, and the report on all.

Test files are left aside unless the command line names some. With pytest-xdist the rows are judged wherever they are
sent to; the process that the user started puts the report together.
"""

from pathlib import Path
from typing import Any

import pytest

from acrn_dm.testing.conformance import Outcome, Report, Verdict, junit, write_json
from acrn_dm.testing.conformance.run import EXCEPTION
from acrn_dm.testing.conformance.table import rows
from acrn_dm_pytest.rows import Broken, Rows, as_property, conclude
from acrn_dm_pytest.target import find

PROPERTY = "acrn_dm_row"


class DeviceRows(pytest.Collector):
    """The rows of one device."""

    judged: Rows

    def collect(self) -> list[pytest.Item]:
        """A test for each row that concerns its kind."""
        return [RowItem.from_parent(self, name=row, nodeid=f"{self.nodeid}::{row}") for row in self.judged.ids]


class RowItem(pytest.Item):
    """One row, called by its id."""

    def runtest(self) -> None:
        """Judge it, and keep the verdict for the report."""
        device = self.parent
        assert isinstance(device, DeviceRows)
        verdict, exceptions = device.judged.verdict(self.name)
        kind = device.judged.subject.kind
        self.user_properties.append((PROPERTY, as_property(device.name, kind, verdict, exceptions)))
        conclude(verdict, exceptions)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What was seen; of anything else than a broken row the traceback, too."""
        return str(excinfo.value) if isinstance(excinfo.value, Broken) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """What it is about, for there is no line that it stands in."""
        assert self.parent is not None
        return self.config.rootpath, None, f"{self.name} of {self.parent.name}"


class ConformPlugin:
    """What a run with ``--acrn-dm-conform`` does otherwise than others."""

    def __init__(self, config: pytest.Config) -> None:
        self._targets: list[str] = config.getoption("acrn_dm_conform")
        self._report: str | None = config.getoption("acrn_dm_conform_report")
        self._alone = config.args_source is not pytest.Config.ArgsSource.ARGS
        self._seen: dict[str, list[dict[str, Any]]] = {}
        self._seconds: dict[str, float] = {}

    def pytest_ignore_collect(self) -> bool | None:
        """Test files are for runs that name them."""
        return True if self._alone else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """The rows come behind what was collected, before ``-k`` chooses."""
        for text in self._targets:
            device = DeviceRows.from_parent(session, name=text, nodeid=text)
            device.judged = Rows(find(text))
            found: list[pytest.Item | pytest.Collector] = [*device.collect()]
            report = pytest.CollectReport(nodeid=text, outcome="passed", longrepr=None, result=found)
            session.ihook.pytest_collectreport(report=report)  # whoever counts what is collected counts these
            items += (item for item in found if isinstance(item, pytest.Item))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a row came to."""
        for name, value in report.user_properties if report.when == "call" else ():
            if name == PROPERTY and isinstance(value, dict):
                self._seen.setdefault(value["device"], []).append(value)
                self._seconds[value["device"]] = self._seconds.get(value["device"], 0.0) + report.duration

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The counts, and the report's file; in the process that the user started."""
        reports = [self._report_on(device) for device in self._seen]
        if self._report is not None and reports:
            if self._report.endswith(".xml"):
                Path(self._report).write_text(junit(reports), encoding="utf-8")
            else:
                write_json(self._report, reports)
        for report in reports:
            terminalreporter.write_line(report.text().splitlines()[-1])

    def _report_on(self, device: str) -> Report:
        seen = self._seen[device]
        verdicts = {
            value["row"]: Verdict(row=rows()[value["row"]], outcome=Outcome(value["outcome"]), text=value["text"])
            for value in seen
        }
        exceptions = list(dict.fromkeys(text for value in seen for text in value["exceptions"]))
        if exceptions:
            text = "; ".join(exceptions)
            verdicts[EXCEPTION] = Verdict(row=rows()[EXCEPTION], outcome=Outcome.FAILED, text=text)
        ordered = [verdicts[row] for row in rows() if row in verdicts]
        return Report(name=device, kind=seen[0]["kind"], verdicts=ordered, seconds=self._seconds[device])
