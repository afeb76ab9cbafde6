"""Rules of device kinds, a module for each: what section 5 says of it."""

from acrn_dm.testing.conformance.rule import Rule

RULES: tuple[Rule, ...] = ()
