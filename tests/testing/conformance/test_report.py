"""The report: text for people, JUnit and JSON for programs."""

import json
from pathlib import Path
from xml.etree import ElementTree

from acrn_dm.testing.conformance import Outcome, Report, Verdict, junit, write_json
from acrn_dm.testing.conformance.table import rows

PASSED, FAILED, SKIPPED, MISSING = "pci.id.vendor", "dm.pause", "split.legacy.layout", "packed.start_order"


def report(name: str = "mine") -> Report:
    outcomes = {
        PASSED: (Outcome.PASSED, ""),
        FAILED: (Outcome.FAILED, "queue 0 came back twice"),
        SKIPPED: (Outcome.NOT_APPLICABLE, "no legacy"),
        MISSING: (Outcome.NOT_IMPLEMENTED, "no packed rings"),
    }
    verdicts = [Verdict(row=rows()[row], outcome=outcome, text=text) for row, (outcome, text) in outcomes.items()]
    return Report(name=name, kind="net", verdicts=verdicts, seconds=1.25)


def test_text_has_id_requirement_section_and_what_was_seen_of_what_failed() -> None:
    lines = report().text().splitlines()
    assert lines == [
        "dm.pause  MUST: A pause between two requests loses nothing and repeats nothing (Life of a device)",
        "    queue 0 came back twice",
        "mine (net): 1 passed, 1 failed, 1 not applicable, 1 not implemented in 1.2 s",
    ]


def test_text_counts_by_section_on_demand() -> None:
    assert "Life of a device: 1 failed" in report().text(sections=True).splitlines()


def test_junit_has_a_case_for_each_row() -> None:
    suite = ElementTree.fromstring(junit([report()]))[0]
    assert suite.attrib == {"name": "mine", "tests": "4", "failures": "1", "skipped": "2", "time": "1.250"}
    assert {case.attrib["name"]: [child.tag for child in case] for case in suite} == {
        PASSED: [],
        FAILED: ["failure"],
        SKIPPED: ["skipped"],
        MISSING: ["skipped"],
    }


def test_json_has_ids_by_device_section_and_outcome(tmp_path: Path) -> None:
    write_json(tmp_path / "build" / "c.json", [report()])
    device = json.loads((tmp_path / "build" / "c.json").read_text())["devices"]["mine"]
    assert device["sections"]["Life of a device"] == {
        "passed": [],
        "failed": ["dm.pause"],
        "not applicable": [],
        "not implemented": [],
    }
    assert device["texts"] == {FAILED: "queue 0 came back twice", SKIPPED: "no legacy", MISSING: "no packed rings"}


def test_json_keeps_what_it_has_of_other_devices(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        write_json(tmp_path / "c.json", [report(name)])
    assert list(json.loads((tmp_path / "c.json").read_text())["devices"]) == ["one", "two"]
