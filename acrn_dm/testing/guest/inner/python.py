"""A Python for the guest: the interpreter that runs here, with the part of its standard library that needs no more.

All of it is where it is here, for that is where the interpreter looks.
"""

import hashlib
import importlib.machinery
import marshal
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import attrs

from acrn_dm.testing.guest import progress
from acrn_dm.testing.guest.images import cpio, initramfs
from acrn_dm.testing.guest.places import exclusive, home

PROGRAM = "/bin/python3"
# Modules that are neither for lines of a test nor small.
LEFT_OUT = {
    *("__pycache__", "site-packages", "dist-packages", "lib-dynload", "test", "tests", "idlelib", "tkinter", "venv"),
    *("turtledemo", "turtle.py", "lib2to3", "ensurepip", "pydoc_data", "pydoc.py", "doctest.py", "distutils", "dbm"),
    *("sqlite3", "curses", "xmlrpc", "wsgiref", "_pydecimal.py"),
}
EXTENSIONS_LEFT_OUT = re.compile(r"_test|xx|_xx|_ctypes_test|_codecs_")
# Extension modules may need these libraries and no others: what Python itself is made of.
LIBRARIES = re.compile(r"linux-vdso|ld-linux|lib(c|m|dl|pthread|util|rt|ffi|z|python3[\w.]*)\.so")
UNCHECKED = (1).to_bytes(4, "little") + bytes(8)  # PEP 552: by hash, and never looked up


def archive() -> bytes:
    """The cpio archive of it, to be put behind that of a guest. Made once for each interpreter; a few seconds."""
    kept = home() / "images" / f"python-{_identity()}.cpio"
    with exclusive():
        if not kept.exists():
            with progress.step("making the guest's Python"):
                initramfs.keep(kept, cpio.archive(entries()))
        kept.touch()
        return kept.read_bytes()


def entries() -> list[cpio.Entry]:
    """The interpreter, its libraries, and the standard library as byte code."""
    program, version = _program(), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    dynload = Path(sys.base_exec_prefix, sys.platlibdir, version, "lib-dynload")
    extensions = _with_usual_libraries(sorted(dynload.glob("*.so")))
    binary = [cpio.file(str(path).lstrip("/"), path.read_bytes(), 0o755) for path in (program, *extensions)]
    return [
        *(_stripped(entry) for entry in (*binary, *initramfs.libraries([program, *extensions]))),
        *_byte_code(Path(sysconfig.get_path("stdlib"))),
        cpio.symlink(PROGRAM.lstrip("/"), str(program)),
    ]


def _program() -> Path:
    """The interpreter, which in a virtual environment is behind links."""
    return Path(sys.executable).resolve()


def _identity() -> str:
    program = _program().stat()
    told = [sys.version, str(_program()), str(program.st_mtime_ns), str(program.st_size), Path(__file__).read_text()]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _byte_code(source: Path) -> Iterator[cpio.Entry]:
    """Each module as the byte code that is imported where there is no source."""
    for path in sorted(source.rglob("*.py")):
        if LEFT_OUT & set(path.relative_to(source).parts):
            continue
        try:
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True, optimize=2)
        except (SyntaxError, ValueError):
            continue  # templates, and samples of errors
        name = str(path.with_suffix(importlib.machinery.BYTECODE_SUFFIXES[0])).lstrip("/")
        yield cpio.file(name, MAGIC_NUMBER + UNCHECKED + marshal.dumps(code))


def _stripped(entry: cpio.Entry) -> cpio.Entry:
    """Without what only debuggers read, which may be more than the rest; as it is where binutils are absent."""
    strip = shutil.which("strip")
    if strip is None:
        return entry
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(entry.content)
        done = subprocess.run([strip, "--strip-unneeded", file.name], capture_output=True, check=False)
        content = Path(file.name).read_bytes()
    return attrs.evolve(entry, content=content) if done.returncode == 0 else entry


def _with_usual_libraries(files: Sequence[Path]) -> list[Path]:
    """Those that can be loaded with ``LIBRARIES`` alone."""
    found = []
    for path in files:
        told = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
        needs = re.findall(r"^\s+(\S+)", told, re.MULTILINE)
        if not EXTENSIONS_LEFT_OUT.match(path.name) and all(LIBRARIES.match(Path(need).name) for need in needs):
            found.append(path)
    return found
