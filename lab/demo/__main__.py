"""``python -m lab.demo``, which is ``make demo``."""

import argparse
import json
import shutil
import sys
from functools import partial

import attrs

import lab.demo
from acrn_dm.testing.guest.consoles import console_tails
from acrn_dm.testing.guest.errors import HarnessError
from lab.demo import vmm
from lab.demo.log import Log, table
from lab.demo.places import kvm_works_here, place
from lab.demo.run import demonstrate
from lab.paths import BUILD, LAB

SCRATCH = LAB / "demo"
RESULT = BUILD / "demo.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=(lab.demo.__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=("kvm", "lab"), help="default: kvm where that works, else lab")
    parser.add_argument("--vmm", choices=vmm.NAMES, default=vmm.NAMES[0], help="qemu: the same checks under QEMU")
    options = parser.parse_args()
    mode = options.mode or ("kvm" if kvm_works_here() else "lab")
    log = Log()
    log.note(f"{options.vmm} in mode {mode}")
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    try:
        demonstrate(log, SCRATCH, partial(place, mode, log), partial(vmm.command, options.vmm))
    except HarnessError as error:
        log.check("run", False, str(error))
    passed = not log.failures()
    checks = {name: attrs.asdict(check) for name, check in log.checks.items()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"seconds": round(log.seconds, 1), "mode": mode, "checks": checks}, indent=2) + "\n")
    if not passed:
        for name, tail in console_tails("demo-").items():
            print(f"---- console {name}\n{tail}")
    print(f"\n{table(log.checks)}\n{'passed' if passed else 'FAILED'} in {log.seconds:.1f} s, mode {mode}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
