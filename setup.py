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

MODULES = (
    "acrn_dm._fastring",
    "acrn_dm.base._ioctl",
    "acrn_dm.base.events._aio",
    "acrn_dm.backends.kernel._vhost",
    "acrn_dm.devices.terminal._rescue",
    "acrn_dm.hypervisors.acrn.module._hsm",
    "acrn_dm.hypervisors.acrn.module._request_page",
    "acrn_dm.hypervisors.kvm.module._system",
    "acrn_dm.hypervisors.kvm.module._vm",
    "acrn_dm.hypervisors.kvm.vcpu._exits",
    "acrn_dm.hypervisors.kvm.vcpu._state",
    "acrn_dm.hypervisors.kvm.vcpu._vcpu",
    "acrn_dm.ring.native._chain",
    "acrn_dm.ring.native._memory",
    "acrn_dm.ring.native._split",
    "acrn_dm.ring.native._status",
)

setup(
    ext_modules=cythonize(
        [
            Extension(
                name, [f"{name.replace('.', '/')}.pyx"], extra_compile_args=FLAGS + WARNINGS, include_dirs=["acrn_dm"]
            )
            for name in MODULES
        ],
        compiler_directives={"boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True},
        language_level=3,
    ),
)
