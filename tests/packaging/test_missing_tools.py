"""A build on a machine without a compiler or a header: one line that names the package that Debian has it in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GCC = shutil.which("gcc")

pytestmark = [pytest.mark.stress, pytest.mark.skipif(GCC is None, reason="gcc is missing")]


def build(**environment: str) -> list[str]:
    """The lines of a build that ends before it has begun."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("CC", "CFLAGS", "CPPFLAGS")}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr.splitlines()


def includes_without(header: str, folder: Path) -> str:
    """A compiler that looks for headers in a folder like /usr/include, in which there is no *header*."""
    system = Path("/usr/include")
    for path in system.iterdir():
        if path.name == Path(header).parts[0]:
            (folder / path.name).mkdir() if path.is_dir() else None
            for inner in path.iterdir() if path.is_dir() else ():
                if inner.name != Path(header).name:
                    (folder / path.name / inner.name).symlink_to(inner)
        else:
            (folder / path.name).symlink_to(path)
    own = subprocess.run(
        [str(GCC), "-print-file-name=include"], capture_output=True, text=True, check=True
    ).stdout.strip()
    machine = subprocess.run([str(GCC), "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{GCC} -nostdinc -isystem {own} -isystem {folder} -isystem {system / machine}"


def without_python(folder: Path) -> str:
    """A compiler that is not told where Python's headers are."""
    script = folder / "cc"
    script.write_text(
        f'#!/bin/sh\nfor a; do shift; case $a in -I*/python3*) ;; *) set -- "$@" "$a";; esac; done\nexec {GCC} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("compiler", ["", "no-such-cc -m64"])
def test_missing_compiler_is_named_with_its_package(compiler: str, tmp_path: Path) -> None:
    (line,) = build(PATH=str(tmp_path), CC=compiler)
    assert line.startswith("acrn-dm can't be built: there is no C compiler (")
    assert line.endswith("); on Debian: apt install gcc")


@pytest.mark.parametrize(
    ("header", "package"),
    [
        ("linux/vhost.h", "linux-libc-dev"),
        ("linux/kvm.h", "linux-libc-dev"),
        ("linux/acrn.h", "linux-libc-dev"),
        ("stdint.h", "libc6-dev"),
    ],
)
def test_missing_header_is_named_with_its_package(header: str, package: str, tmp_path: Path) -> None:
    said = f"acrn-dm can't be built: the C header {header} is missing; on Debian: apt install {package}"
    assert build(CC=includes_without(header, tmp_path)) == [said]


def test_missing_headers_of_python_are_named_with_their_package(tmp_path: Path) -> None:
    said = "acrn-dm can't be built: the C header Python.h is missing; on Debian: apt install python3-dev"
    assert build(CC=without_python(tmp_path)) == [said]
