"""Build the extension modules; everything else about the package stands in pyproject.toml.

Always cythonizes from the .pyx, so that a stale .c is never built. One switch: ACRN_DM_DEBUG=1 builds with -O0 -g,
bounds checks and Cython's assertions.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("ACRN_DM_DEBUG") == "1"
FLAGS = ["-O0", "-g"] if DEBUG else ["-O2", "-g1"]  # -O3 was measured slower on packed rings (performance notes)
WARNINGS = ["-Wall", "-Wno-unused-function"]

MODULES = {
    "acrn_dm._fastring": "acrn_dm/_fastring.pyx",
    "acrn_dm.ring.native._chain": "acrn_dm/ring/native/_chain.pyx",
    "acrn_dm.ring.native._memory": "acrn_dm/ring/native/_memory.pyx",
    "acrn_dm.ring.native._split": "acrn_dm/ring/native/_split.pyx",
    "acrn_dm.ring.native._status": "acrn_dm/ring/native/_status.pyx",
    "acrn_dm.base.events._aio": "acrn_dm/base/events/_aio.pyx",
    "acrn_dm.hypervisors.kvm._kvm": "acrn_dm/hypervisors/kvm/_kvm.pyx",
    "acrn_dm.backends.kernel._vhost": "acrn_dm/backends/kernel/_vhost.pyx",
    "acrn_dm.devices.terminal._rescue": "acrn_dm/devices/terminal/_rescue.pyx",
    "acrn_dm.hypervisors.acrn.module._hsm": "acrn_dm/hypervisors/acrn/module/_hsm.pyx",
}

setup(
    ext_modules=cythonize(
        [
            Extension(name, [path], extra_compile_args=FLAGS + WARNINGS, include_dirs=["acrn_dm"])
            for name, path in MODULES.items()
        ],
        compiler_directives={"boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True},
        language_level=3,
    ),
)
