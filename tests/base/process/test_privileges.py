"""acrn_dm.base.process.privileges: both commands give up new privileges first of all."""

import subprocess
import sys

import pytest

SHOW = "print(*(line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')))"


@pytest.mark.parametrize(
    ("module", "args"),
    [
        ("acrn_dm.cli", ["--version"]),
        ("acrn_dm.cli", ["--no-such-option"]),
        ("acrn_dm.export.vhost_user.cli", ["console", "--print-capabilities"]),
        ("acrn_dm.export.vhost_user.cli", ["no-such-kind"]),
    ],
)
def test_commands_gain_no_privileges_from_the_first_line_of_main(module: str, args: list[str]) -> None:
    script = f"from {module} import main\n{SHOW}\nmain({args})\n{SHOW}"
    run = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("NoNewPrivs")]
    assert lines == [["NoNewPrivs:", "0"], ["NoNewPrivs:", "1"]]


def test_commands_do_nothing_before() -> None:
    """What a plugin or a file starts could otherwise come first."""
    script = (
        "import acrn_dm.cli.app as app, acrn_dm.export.vhost_user.cli as export, acrn_dm.base.process.privileges as p\n"
        "class First(Exception): pass\n"
        "def first(): raise First\n"
        "p.no_new_privileges = first\n"
        "for main in (app.main, export.main):\n"
        "    try: main(None)\n"
        "    except First: print('first')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert run.stdout.split() == ["first", "first"]
