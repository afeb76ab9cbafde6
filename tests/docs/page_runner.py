"""A page of the documentation, followed as a reader does: files are written, commands typed, output compared.

* A ``{code-block}`` with ``:caption: FILE`` is a file: it is written below the reader's folder.
* A ``console`` block has commands (``$ ...``, a backslash continues) and what they print; ``...`` is any text.
  A ``cd`` and an ``export`` hold for the rest of the page. Each command must end with 0; with ``:class: fails`` it must
  not.
* ``:class: NEED`` at a block names what it needs beside that: ``in-a-guest``, ``as-root``; who runs the page says what
  there is, and the others are left out.
* An HTML comment ``<!-- shown by: FILE -->`` before a block says which test runs it instead, and
  ``<!-- quoted from: FILE -->`` where its lines stand.
"""

import doctest
import importlib.metadata
import os
import re
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?:<!-- (?:shown by: (?P<shown>\S+)|quoted from: (?P<quoted>\S+)) -->\n)?"
    r"^(?P<fence>`{3,})(?P<head>[^\n]*)\n(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
OPTION = re.compile(r":(\w+): *(.*)\n")
CHECKER = doctest.OutputChecker()
FAILS = "fails"
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
QUIET = ("toctree", "eval-rst", "text", "mermaid")  # nothing to run


@attrs.frozen(kw_only=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    caption: str = ""
    needs: frozenset[str] = frozenset()
    shown_by: str = ""
    quoted_from: str = ""
    fails: bool = False


@attrs.frozen(kw_only=True)
class Command:
    """One command of a console block, with the output that the page shows."""

    line: str
    output: str
    fails: bool = False


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of the text of a *page*, in order."""
    for found in FENCE.finditer(page):
        head = found["head"].strip()
        language = head.removeprefix("{code-block}").strip() if head.startswith("{code-block}") else head.strip("{}")
        body, options = found["body"], {}
        while head.startswith("{") and (option := OPTION.match(body)):
            options[option[1]] = option[2].strip()
            body = body[option.end() :]
        yield Block(
            language=language,
            text=body.removeprefix("\n"),
            caption=options.get("caption", ""),
            needs=frozenset(options.get("class", "").split()) - {FAILS},
            fails=FAILS in options.get("class", "").split(),
            shown_by=found["shown"] or "",
            quoted_from=found["quoted"] or "",
        )


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console *block*."""
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        lines = part.splitlines()
        first = [lines.pop(0)]
        while first[-1].endswith("\\"):
            first.append(lines.pop(0))
        yield Command(line="\n".join(first), output="\n".join([*lines, ""]), fails=block.fails)


def lines_for(page: str, test: str) -> list[str]:
    """The command lines of the text of a *page* that the file *test* runs, each in one line."""
    marked = [block for block in blocks(page) if block.shown_by == test]
    return [command.line.replace("\\\n", " ") for block in marked for command in commands(block)]


@attrs.define(eq=False)
class Reader:
    """Somebody who follows a page in a *folder* of their own; *has* says which needs are met."""

    folder: Path
    environment: dict[str, str]
    has: frozenset[str] = frozenset()
    seconds: float = 120

    def follow(self, page: str) -> int:
        """Do what the text of *page* says; the number of files and commands. AssertionError names what differs."""
        done = 0
        for block in blocks(page):
            if block.shown_by or block.quoted_from or not block.needs <= self.has:
                continue
            if block.caption:
                self.write(block)
                done += 1
            elif block.language == "console":
                for command in commands(block):
                    self.type(command)
                    done += 1
        return done

    def write(self, block: Block) -> None:
        """Make the file that *block* shows."""
        path = Path(self.environment.get("PWD", self.folder)) / block.caption
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def type(self, command: Command) -> None:
        """Run *command* where the last one left off, and compare what it prints."""
        with tempfile.TemporaryFile("w+") as state:
            result = subprocess.run(
                ["bash", "-c", f"{command.line}\nstatus=$?; env -0 >&{state.fileno()}; exit $status"],
                cwd=self.environment.get("PWD", self.folder),
                env=self.environment,
                pass_fds=[state.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=self.seconds,
                check=False,
            )
            state.seek(0)
            self.environment = dict(line.split("=", 1) for line in state.read().split("\0") if "=" in line)
        told = f"$ {command.line}\n{result.stdout}"
        assert (result.returncode != 0) == command.fails, f"exit code {result.returncode} of\n{told}"
        assert not command.output.strip() or CHECKER.check_output(command.output, result.stdout, LOOSE), (
            f"the page shows\n{command.output}\nand not\n{told}"
        )


def own_programs(folder: Path) -> Path:
    """The programs of an environment of the reader's own in *folder*, where everything is that is installed here.
    What a page installs stays there.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python3*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    python = folder / "bin" / "python"
    for script in importlib.metadata.entry_points(group="console_scripts"):
        if script.dist is not None and script.dist.name in ("acrn-dm", "pip") and not script.name[-1].isdigit():
            call = f"import sys; from {script.module} import {script.attr}; sys.exit({script.attr}())"
            program = python.with_name(script.name)
            program.write_text(f"#!{python}\n{call}\n")
            program.chmod(0o755)
    return python.parent


def environment(home: Path, *path: Path) -> dict[str, str]:
    """A reader's environment: *path* first, nothing of the test's own settings of Python or pytest."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "ACRN_DM", "RIG_", "PWD"))}
    return {
        **kept,
        "HOME": str(home),
        "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
        "TERM": "dumb",
        "COLUMNS": "120",
    }
