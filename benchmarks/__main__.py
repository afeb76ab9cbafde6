"""``make bench``: run every benchmark of this folder in turn; each prints its table and writes its JSON."""

import importlib
import pkgutil
import sys

import benchmarks


def main() -> int:
    """Exit status: how many benchmarks failed."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_"))
    failed = 0
    for name in names:
        failed += bool(importlib.import_module(f"benchmarks.{name}").main())
    return failed


if __name__ == "__main__":
    sys.exit(main())
