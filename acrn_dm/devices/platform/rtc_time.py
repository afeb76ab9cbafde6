"""The RTC's date registers: from seconds to BCD or binary, 24 or 12 hours, and back (MC146818A, table 4).

``datetime`` is imported when a guest first looks at its clock: no machine waits for that at its start.
"""

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
CENTURY = 0x32
TIME_REGISTERS = (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY)

BINARY = 0x04  # bits of register B
HOURS_24 = 0x02
PM = 0x80  # bit of the hour in 12-hour mode

FIRST, LAST = -62_135_596_800, 253_402_300_799  # the first second of the year 1 and the last of 9999


def encode(seconds: int, mode: int) -> dict[int, int]:
    """Registers of *seconds* since 1970 (kept between the years 1 and 9999) in the format of register B."""
    import datetime  # noqa: PLC0415

    when = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=min(max(seconds, FIRST), LAST))
    hour = when.hour if mode & HOURS_24 else (when.hour + 11) % 12 + 1
    values = {
        SECONDS: when.second,
        MINUTES: when.minute,
        HOURS: hour,
        WEEKDAY: when.isoweekday() % 7 + 1,  # Sunday is 1
        DAY: when.day,
        MONTH: when.month,
        YEAR: when.year % 100,
        CENTURY: when.year // 100,
    }
    if not mode & BINARY:
        values = {register: value // 10 << 4 | value % 10 for register, value in values.items()}
    if not mode & HOURS_24 and when.hour >= 12:
        values[HOURS] |= PM
    return values


def decode(registers: bytes | bytearray, mode: int) -> int | None:
    """Seconds since 1970 of the registers in the format of register B; None for no date. The weekday is free."""
    import datetime  # noqa: PLC0415

    hour = registers[HOURS]
    afternoon = bool(hour & PM) and not mode & HOURS_24
    values = [registers[r] for r in (CENTURY, YEAR, MONTH, DAY, MINUTES, SECONDS)]
    values.append(hour & ~PM if afternoon else hour)
    if not mode & BINARY:
        if any(v & 0xF > 9 or v >> 4 > 9 for v in values):
            return None
        values = [10 * (v >> 4) + (v & 0xF) for v in values]
    century, year, month, day, minute, second, hour = values
    if not mode & HOURS_24:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * afternoon
    if year > 99:
        return None
    try:
        when = datetime.datetime(100 * century + year, month, day, hour, minute, second)
    except ValueError:
        return None
    return int((when - datetime.datetime(1970, 1, 1)).total_seconds())
