"""Steps that are all taken, whatever happens in one of them: how things are given back."""

import logging
from collections.abc import Callable, Iterable

from acrn_dm.base.errors import AcrnDmError

log = logging.getLogger(__name__)


def do_all(steps: Iterable[Callable[[], object]]) -> None:
    """Do every step, whatever happened in those before; at the end raise the first error, and log the others."""
    errors: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as e:
            errors.append(e)
    for error in errors[1:]:
        log.error("closing: %s", error, exc_info=None if isinstance(error, AcrnDmError) else error)
    if errors:
        raise errors[0]
