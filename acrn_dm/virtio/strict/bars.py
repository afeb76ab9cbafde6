"""The register structures with a strict check before them: the accesses go on as they came."""

from acrn_dm.base.bus import Handler
from acrn_dm.virtio.pci import legacy, modern
from acrn_dm.virtio.strict.registers import RegisterRules


class StrictModernBar:
    """The handler *inner* of BAR 4, behind the rules. Called with the function's lock held."""

    def __init__(self, inner: Handler, rules: RegisterRules) -> None:
        self._inner = inner
        self._rules = rules

    def read(self, offset: int, size: int) -> int:
        """Read as the driver does."""
        region, inner = offset - offset % modern.REGION_SIZE, offset % modern.REGION_SIZE
        register = modern.COMMON.find(inner, size)
        if region == modern.COMMON_OFFSET and register is None:
            self._rules.odd_access(inner, size)
        elif region == modern.DEVICE_OFFSET:
            self._rules.config_read(inner, size)
        value = self._inner.read(offset, size)
        if region == modern.ISR_OFFSET:
            self._rules.was_read("isr_status", value)
        elif region == modern.COMMON_OFFSET and register is not None:
            self._rules.was_read(register.name, value)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as the driver does."""
        region, inner = offset - offset % modern.REGION_SIZE, offset % modern.REGION_SIZE
        register = modern.COMMON.find(inner, size)
        if region == modern.COMMON_OFFSET and register is None:
            self._rules.odd_access(inner, size)
        elif region == modern.COMMON_OFFSET and register is not None:
            self._rules.is_written(register.name, value)
        elif region == modern.DEVICE_OFFSET:
            self._rules.config_written(inner, size)
        elif region == modern.NOTIFY_OFFSET:
            self._rules.notified(inner // modern.NOTIFY_MULTIPLIER, size, value)
        self._inner.write(offset, size, value)


class StrictLegacyBar:
    """The handler *inner* of BAR 0, behind the rules that a legacy driver has, too."""

    def __init__(self, inner: Handler, rules: RegisterRules) -> None:
        self._inner = inner
        self._rules = rules

    def read(self, offset: int, size: int) -> int:
        """Read as the driver does."""
        value = self._inner.read(offset, size)
        register = legacy.HEADER.find(offset, size)
        if register is not None and offset < legacy.HEADER_SIZE:
            self._rules.was_read(register.name, value)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as the driver does."""
        register = legacy.HEADER.find(offset, size)
        if register is not None and offset < legacy.HEADER_SIZE:
            self._rules.is_written(register.name, value)
        self._inner.write(offset, size, value)
