"""Decimal numbers as people write them."""

import re


def decimal(text: str, low: int, high: int, what: str) -> int:
    """Read a decimal number from *low* to *high*; nothing else, no sign and no blanks. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,20}", text) or not low <= int(text) <= high:
        raise ValueError(f"{what} {text!r} is not a decimal number from {low} to {high}")
    return int(text)


def digits(text: str, what: str) -> int:
    """Read a decimal number that is bounded elsewhere: at most 20 digits, as 64 bits have. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise ValueError(f"{what} {text!r}: expected a decimal number of at most 20 digits")
    return int(text)
