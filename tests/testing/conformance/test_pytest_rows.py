"""Rows as pytest's tests: ``--acrn-dm-conform``, its report, and ``conformance_tests`` in a file of the author's."""

import json
from xml.etree import ElementTree

import pytest

pytest_plugins = ["pytester"]

PLUGIN = """
    import attrs
    from acrn_dm import DeviceType, VirtioDevice, hookimpl, option

    @attrs.frozen(kw_only=True)
    class Options:
        lost: bool = option(default=False, help="return no chain")

    class Mine(VirtioDevice):
        device_id = 42

        def __init__(self, options, context):
            super().__init__(context)
            self.options = options

        def handle_queue(self, queue):
            for chain in queue.pop_batch():
                if not self.options.lost:
                    queue.push(chain, 0)

    @hookimpl
    def acrn_dm_device_types():
        return [DeviceType(name="mine", summary="", config=Options, create=Mine)]
"""
ROWS = "pci.id.vendor or dm.lost_chain or split.legacy.layout or rsvd.sriov.offer"


@pytest.fixture
def plugin(pytester: pytest.Pytester) -> pytest.Pytester:
    """An author's folder with a plugin in it."""
    pytester.makepyfile(mine_plugin=PLUGIN)
    pytester.syspathinsert()
    return pytester


def run(plugin: pytest.Pytester, *args: str) -> pytest.RunResult:
    return plugin.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-rs", *args)


def test_each_row_is_a_test_called_by_its_id(plugin: pytest.Pytester) -> None:
    ran = run(plugin, "--acrn-dm-conform", "mine_plugin:mine", "-k", ROWS, "-v")
    ran.assert_outcomes(passed=2, skipped=2, deselected=ran.parseoutcomes()["deselected"])
    text = ran.stdout.str()
    assert "mine_plugin:mine::dm.lost_chain PASSED" in text
    assert "not implemented: no function has an SR-IOV capability" in text
    assert "not applicable: there is no legacy to use" in text
    assert "mine_plugin:mine: 2 passed, 1 not applicable, 1 not implemented in" in text


@pytest.mark.stress
def test_row_that_fails_says_its_requirement_and_what_was_seen(plugin: pytest.Pytester) -> None:
    ran = run(plugin, "--acrn-dm-conform", "mine_plugin:mine,lost", "-k", "dm.lost_chain")
    ran.assert_outcomes(failed=1, deselected=ran.parseoutcomes()["deselected"])
    text = ran.stdout.str()
    assert "dm.lost_chain  SHOULD: The device returns some chain on some queue (Chains)" in text
    assert "Traceback" not in text


@pytest.mark.stress
def test_report_has_what_each_row_came_to_by_device_and_section(plugin: pytest.Pytester) -> None:
    target = "mine_plugin:mine,lost"
    run(plugin, "--acrn-dm-conform", target, "-k", ROWS, "--acrn-dm-conform-report=build/c.json")
    devices = json.loads((plugin.path / "build" / "c.json").read_text())["devices"]
    sections = devices[target]["sections"]
    assert sections["Chains"]["failed"] == ["dm.lost_chain"]
    assert [row for section in sections.values() for row in section["passed"]] == ["pci.id.vendor"]
    assert devices[target]["texts"]["rsvd.sriov.offer"] == "no function has an SR-IOV capability"


@pytest.mark.stress
def test_report_is_junit_where_its_name_says_so(plugin: pytest.Pytester) -> None:
    run(plugin, "--acrn-dm-conform", "mine_plugin:mine,lost", "-k", ROWS, "--acrn-dm-conform-report=c.xml")
    suite = ElementTree.parse(plugin.path / "c.xml").getroot()[0]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("4", "1", "2")
    failed = [case.attrib["name"] for case in suite if case.find("failure") is not None]
    assert failed == ["dm.lost_chain"]


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("mine_plugin", "not PACKAGE:DEVICE"),
        pytest.param("mine_plugin:other", "mine_plugin has no device 'other'; it has mine", marks=pytest.mark.stress),
        pytest.param("mine_plugin:mine,thrice=1", "unknown option 'thrice'", marks=pytest.mark.stress),
        ("no_such_module:mine", "no_such_module can't be imported: ModuleNotFoundError"),
    ],
)
def test_device_that_is_not_there_is_one_line(plugin: pytest.Pytester, target: str, line: str) -> None:
    ran = run(plugin, "--acrn-dm-conform", target)
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert line in ran.stderr.str()


@pytest.mark.stress
def test_test_files_are_left_aside_unless_they_are_named(plugin: pytest.Pytester) -> None:
    plugin.makepyfile(test_own="def test_own(): pass")
    rows = ("--acrn-dm-conform", "mine_plugin:mine", "-k", "pci.id.vendor or test_own")
    assert run(plugin, *rows).parseoutcomes()["passed"] == 1
    assert run(plugin, *rows, "test_own.py").parseoutcomes()["passed"] == 2


@pytest.mark.stress
def test_author_makes_the_rows_tests_of_a_file(plugin: pytest.Pytester) -> None:
    plugin.makepyfile(
        test_rows_of_mine="""
            import mine_plugin
            from acrn_dm_pytest import conformance_tests

            def build(machine):
                return machine.add(mine_plugin.acrn_dm_device_types()[0], "lost", slot=3)

            test_conformance = conformance_tests(build)
        """
    )
    ran = run(plugin, "-k", ROWS, "-v")
    ran.assert_outcomes(passed=1, failed=1, skipped=1, deselected=ran.parseoutcomes()["deselected"])
    assert "test_rows_of_mine.py::test_conformance[dm.lost_chain] FAILED" in ran.stdout.str()
