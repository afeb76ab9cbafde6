"""Build the extension module against the installed acrn-dm; everything else stands in pyproject.toml."""

import importlib.util
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SPEC = importlib.util.find_spec("acrn_dm")
if SPEC is None or SPEC.origin is None:
    raise SystemExit("acrn-dm is not installed here: pip install acrn-dm, then again with --no-build-isolation")
ACRN_DM = Path(SPEC.origin).parent  # its .pxd files are there, and the header that they include
ENGINE = Extension(
    "acrn_dm_ram_disk._engine",
    ["src/acrn_dm_ram_disk/_engine.pyx"],
    include_dirs=[str(ACRN_DM)],
    extra_compile_args=["-O2", "-Wall", "-Wno-unused-function"],
)

setup(ext_modules=cythonize([ENGINE], include_path=[str(ACRN_DM.parent)], language_level=3))
