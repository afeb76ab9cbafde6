"""The conformance suite: what any virtio device, and each kind, owes its driver, judged row by row.

``conform(build)`` returns a report, ``assert_device_conforms(build)`` raises for what failed, and in a plugin's tests
each row can be a test of its own::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(lambda machine: machine.add(MyDevice, "path=x", slot=SLOT))

*build* puts the device into ``SLOT`` of the machine it is given.
"""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.checks import CHECKS, Check, assert_device_conforms
from acrn_dm.testing.conformance.report import Outcome, Report, Verdict, junit, write_json
from acrn_dm.testing.conformance.rule import NotApplicable, Rule, rule
from acrn_dm.testing.conformance.rules.hostile import HOSTILE
from acrn_dm.testing.conformance.run import RULES, conform
from acrn_dm.testing.conformance.setup import Setup
from acrn_dm.testing.conformance.subject import SLOT, Build, Subject

__all__ = (
    "CHECKS",
    "HOSTILE",
    "RULES",
    "SLOT",
    "Bench",
    "Build",
    "Check",
    "NotApplicable",
    "Outcome",
    "Report",
    "Rule",
    "Setup",
    "Subject",
    "Verdict",
    "assert_device_conforms",
    "conform",
    "junit",
    "rule",
    "write_json",
)
