"""Build the extension modules; everything else about the package stands in pyproject.toml.

Always cythonizes from the .pyx, so that a stale .c is never built. One switch: ACRN_DM_DEBUG=1 builds with -O0 -g,
bounds checks and Cython's assertions; else a level of optimization in CFLAGS is the builder's choice. Where the
compiler or a header is missing, one line names Debian's package. Where CYTHON_CACHE_DIR names a folder, C that Cython
has made of the same text is taken from there.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("ACRN_DM_DEBUG") == "1"
CHOSEN = re.search(r"(^|\s)-O", os.environ.get("CFLAGS", "")) is not None
LEVEL = [] if CHOSEN else ["-O2"]  # -O3 was measured slower on packed rings (performance notes)
# Vectorized, a chain's few words are gathered for one wide store by more instructions than their stores were.
FLAGS = ["-O0", "-g"] if DEBUG else [*LEVEL, "-fno-tree-slp-vectorize", "-g1"]
WARNINGS = ["-Wall", "-Wno-unused-function"]
CPUS = len(os.sched_getaffinity(0))
COMMANDS = {"build", "build_ext", "bdist_wheel", "develop", "editable_wheel", "install"}  # those that compile
HEADERS = {  # Debian's package of each
    "stdint.h": "libc6-dev",
    "linux/vhost.h": "linux-libc-dev",
    "linux/kvm.h": "linux-libc-dev",
    "linux/acrn.h": "linux-libc-dev",
    "Python.h": "python3-dev",
}
METADATA = {"dist_info", "egg_info", "sdist"}  # those that have no use for C

MODULES = (
    "acrn_dm._fastring",
    "acrn_dm.backends.kernel._vhost",
    "acrn_dm.backends.user.native._relay",
    "acrn_dm.backends.user.native._sampler",
    "acrn_dm.base._ioctl",
    "acrn_dm.base._libc",
    "acrn_dm.base.events._aio",
    "acrn_dm.base.events._poll",
    "acrn_dm.base.process._shortened",
    "acrn_dm.base.sandbox._calls",
    "acrn_dm.devices.terminal._rescue",
    "acrn_dm.devices.virtio_blk.image._standing",
    "acrn_dm.devices.virtio_blk.native._plane",
    "acrn_dm.devices.virtio_blk.native._request",
    "acrn_dm.devices.virtio_blk.native._service",
    "acrn_dm.devices.virtio_blk.native.engines._engine",
    "acrn_dm.devices.virtio_blk.native.engines._pool",
    "acrn_dm.devices.virtio_blk.native.engines._uring",
    "acrn_dm.devices.virtio_blk.native.shortcut._mapping",
    "acrn_dm.devices.virtio_blk.native.shortcut._shortcut",
    "acrn_dm.devices.virtio_blk.native.tasks._answers",
    "acrn_dm.devices.virtio_blk.native.tasks._task",
    "acrn_dm.devices.virtio_blk.native.throttle._gate",
    "acrn_dm.devices.virtio_blk.native.throttle._throttle",
    "acrn_dm.devices.virtio_console.native._port_plane",
    "acrn_dm.devices.virtio_net.steering._hash",
    "acrn_dm.devices.virtio_net.native._link",
    "acrn_dm.devices.virtio_net.native._port",
    "acrn_dm.devices.virtio_net.native._rx",
    "acrn_dm.devices.virtio_net.native._tx",
    "acrn_dm.devices.virtio_net.native.frames._filter",
    "acrn_dm.devices.virtio_net.native.frames._headers",
    "acrn_dm.export.vfio_user._calls",
    "acrn_dm.hypervisors.acrn.module._hsm",
    "acrn_dm.hypervisors.acrn.module._request_page",
    "acrn_dm.hypervisors.kvm.module._system",
    "acrn_dm.hypervisors.kvm.module._vm",
    "acrn_dm.hypervisors.kvm.vcpu._exits",
    "acrn_dm.hypervisors.kvm.vcpu._state",
    "acrn_dm.hypervisors.kvm.vcpu._vcpu",
    "acrn_dm.ring.native._chain",
    "acrn_dm.ring.native.dirty._dirty",
    "acrn_dm.ring.native._memory",
    "acrn_dm.ring.native._ring",
    "acrn_dm.ring.native._status",
    "acrn_dm.ring.native.notes._notes",
    "acrn_dm.ring.native.packed._packed",
    "acrn_dm.ring.native.split._split",
    "acrn_dm.ring.native.tally._tally",
    "acrn_dm.ring.trial._fuzz",
    "acrn_dm.ring.trial._race",
    "acrn_dm.testing.native._echo_plane",
    "acrn_dm.testing.native._handler",
    "acrn_dm.virtio.native._coalescer",
    "acrn_dm.virtio.native._counters",
    "acrn_dm.virtio.native._plane",
)


URING = "acrn_dm.devices.virtio_blk.native.engines._uring"
URING_TEXT = """#include <liburing.h>
#ifndef IORING_ASYNC_CANCEL_ANY
#error too old
#endif
"""


def compiles(text: str) -> bool:
    """Whether the C compiler finds everything that *text* includes."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    flags = shlex.split(os.environ.get("CPPFLAGS", "")) + shlex.split(os.environ.get("CFLAGS", ""))
    probe = [*compiler, *flags, *includes, "-E", "-x", "c", "-"]
    return subprocess.run(probe, input=text, capture_output=True, text=True, check=False).returncode == 0


def missing() -> "str | None":
    """What the build lacks here, and the Debian package that has it; None if it lacks nothing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        return f"there is no C compiler ({compiler[0]}); on Debian: apt install gcc"
    for header, package in HEADERS.items():
        if not compiles(f"#include <{header}>\n"):
            return f"the C header {header} is missing; on Debian: apt install {package}"
    return None


if COMMANDS & set(sys.argv):
    lack = missing()
    if lack is not None:
        raise SystemExit(f"acrn-dm can't be built: {lack}")

# Without liburing disks are served by threads; ``aio=io_uring`` says so.
has_uring = bool(COMMANDS & set(sys.argv)) and compiles(URING_TEXT)
if COMMANDS & set(sys.argv) and not has_uring:
    print("building without io_uring: no liburing 2.2 or later; on Debian: apt install liburing-dev", file=sys.stderr)


def extension(name: str) -> Extension:
    """The extension module *name*."""
    uring = name == URING and has_uring
    return Extension(
        name,
        [f"{name.replace('.', '/')}.pyx"],
        extra_compile_args=FLAGS + WARNINGS,
        include_dirs=["acrn_dm"],
        libraries=["uring"] if uring else [],
        define_macros=[("ACRN_DM_LIBURING", "1")] if uring else [],
    )


modules = [extension(name) for name in MODULES]
if COMMANDS & set(sys.argv) or not METADATA & set(sys.argv):
    modules = cythonize(
        modules,
        compiler_directives={"boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True},
        language_level=3,
        nthreads=CPUS,
        cache="CYTHON_CACHE_DIR" in os.environ,
    )
# A compiler for each CPU: what is built when somebody waits for it.
setup(ext_modules=modules, options={"build_ext": {"parallel": CPUS}})
