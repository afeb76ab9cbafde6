from acrn_dm.base._ioctl import DeviceFile
from acrn_dm.hypervisors.kvm.module._vm import Vm

CPUID_INDEXED: int
CAP_IRQ_ROUTING: int
CAP_MAX_VCPUS: int
CAP_TSC_DEADLINE_TIMER: int
REQUIRED_CAPS: dict[str, int]

class Kvm(DeviceFile):
    def check_extension(self, cap: int) -> int: ...
    def supported_cpuid(self) -> list[tuple[int, int, int, int, int, int, int]]: ...
    def create_vm(self) -> Vm: ...
