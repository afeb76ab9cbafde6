"""The limit of open files, in a process of its own."""

import resource
import subprocess
import sys

CODE = """
import resource
from acrn_dm.base.files.descriptors import limit, raise_limit
print(limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
raise_limit()
print(limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_soft_limit_is_raised_to_the_hard_one() -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 300))

    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, preexec_fn=lower)
    assert done.stdout.splitlines() == ["300 (256, 300)", "300 (300, 300)"]
