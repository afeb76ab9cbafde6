"""LM75: a thermometer. Registers, big-endian: temperature, configuration, hysteresis, limit; steps of 0.5 degrees."""

from acrn_dm_i2c.slave import Slave

TEMPERATURE, CONFIGURATION, HYSTERESIS, LIMIT = range(4)
LOWEST, HIGHEST = -55.0, 125.0
AT_POWER_ON = {HYSTERESIS: 75.0, LIMIT: 80.0}


def encode(degrees: float) -> int:
    """Register of 16 bits: two's complement in 9 bits of half degrees, on the left. Raises ValueError."""
    if not LOWEST <= degrees <= HIGHEST:
        raise ValueError(f"{degrees} degrees: expected {LOWEST:.0f} to {HIGHEST:.0f}")
    return round(degrees * 2) << 7 & 0xFF80


class Lm75(Slave):
    """The chip; *text* is the temperature at first, 25 degrees."""

    def __init__(self, text: str) -> None:
        self.degrees = float(text or 25)
        registers = {TEMPERATURE: self.degrees, **AT_POWER_ON}
        self._registers = {number: encode(degrees) for number, degrees in registers.items()}
        self._registers[CONFIGURATION] = 0
        self._pointer = TEMPERATURE
        self._at = 0  # bytes since the start

    def start(self, read: bool) -> bool:
        """Bytes count from here."""
        self._at = 0
        return True

    def write(self, byte: int) -> bool:
        """The pointer, then the register's bytes; the temperature can't be written."""
        at, self._at = self._at, self._at + 1
        if at == 0:
            self._pointer = byte & 3
            return True
        if self._pointer == CONFIGURATION:
            self._registers[CONFIGURATION] = byte & 0x1F
        elif self._pointer != TEMPERATURE and at <= 2:
            shift = 8 * (2 - at)
            value = self._registers[self._pointer] & ~(0xFF << shift) | byte << shift
            self._registers[self._pointer] = value & 0xFF80
        return self._pointer != TEMPERATURE

    def read(self) -> int:
        """The register at the pointer, again and again."""
        at, self._at = self._at, self._at + 1
        value = self._registers[self._pointer]
        return value if self._pointer == CONFIGURATION else value >> (8 if at % 2 == 0 else 0) & 0xFF

    def command(self, line: str) -> str:
        """``temperature [DEGREES]``."""
        verb, _, rest = line.partition(" ")
        if verb != "temperature":
            raise ValueError(f"{verb!r}: expected temperature [DEGREES]")
        if not rest:
            return f"{self.degrees:g}"
        self._registers[TEMPERATURE] = encode(float(rest))
        self.degrees = float(rest)
        return ""
