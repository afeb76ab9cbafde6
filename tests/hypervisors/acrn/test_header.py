"""The encoders' numbers and layouts against a C program compiled with the kernel's own header.

ACRN's additions, which are in no installed header, are compared with the values its kernel and hypervisor have.
"""

import json
import struct
import subprocess
from pathlib import Path

import pytest

from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module import vhm_abi as vhm
from tests.hypervisors.acrn import fake_abi, fake_acrn_vm, fake_hsm

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <linux/acrn.h>
#define N(name) printf("\"%s\": %lu,\n", #name, (unsigned long)ACRN_IOCTL_##name);
#define S(type) printf("\"sizeof %s\": %zu,\n", #type, sizeof(struct type));
#define O(type, member) printf("\"%s.%s\": %zu,\n", #type, #member, offsetof(struct type, member));
#define V(name) printf("\"%s\": %lu,\n", #name, (unsigned long)(name));
int main(void)
{
    printf("{\n");
    N(CREATE_VM) N(DESTROY_VM) N(START_VM) N(PAUSE_VM) N(RESET_VM) N(SET_VCPU_REGS) N(INJECT_MSI) N(VM_INTR_MONITOR)
    N(SET_IRQLINE) N(NOTIFY_REQUEST_FINISH) N(CREATE_IOREQ_CLIENT) N(ATTACH_IOREQ_CLIENT) N(DESTROY_IOREQ_CLIENT)
    N(CLEAR_VM_IOREQ) N(SET_MEMSEG) N(PM_GET_CPU_STATE) N(IOEVENTFD) N(IRQFD)
    S(acrn_vm_creation) S(acrn_vcpu_regs) S(acrn_regs) S(acrn_vm_memmap) S(acrn_msi_entry) S(acrn_ioreq_notify)
    S(acrn_ioeventfd) S(acrn_irqfd) S(acrn_io_request) S(acrn_io_request_buffer) S(acrn_pstate_data) S(acrn_cstate_data)
    O(acrn_vm_creation, vcpu_num) O(acrn_vm_creation, uuid) O(acrn_vm_creation, vm_flag) O(acrn_vm_creation, ioreq_buf)
    O(acrn_vm_creation, cpu_affinity)
    O(acrn_vcpu_regs, vcpu_regs) O(acrn_regs, gdt) O(acrn_regs, idt) O(acrn_regs, rip) O(acrn_regs, cs_base)
    O(acrn_regs, cr0) O(acrn_regs, cr4) O(acrn_regs, cr3) O(acrn_regs, ia32_efer) O(acrn_regs, rflags)
    O(acrn_regs, cs_ar) O(acrn_regs, cs_limit) O(acrn_regs, cs_sel) O(acrn_regs, ss_sel) O(acrn_regs, ds_sel)
    O(acrn_regs, es_sel) O(acrn_regs, fs_sel) O(acrn_regs, gs_sel) O(acrn_regs, tr_sel)
    O(acrn_gp_regs, rax) O(acrn_gp_regs, rbx) O(acrn_gp_regs, rsp) O(acrn_gp_regs, rsi)
    O(acrn_vm_memmap, attr) O(acrn_vm_memmap, user_vm_pa) O(acrn_vm_memmap, vma_base) O(acrn_vm_memmap, len)
    O(acrn_io_request, completion_polling) O(acrn_io_request, reqs) O(acrn_io_request, kernel_handled)
    O(acrn_io_request, processed)
    O(acrn_pio_request, address) O(acrn_pio_request, size) O(acrn_pio_request, value)
    O(acrn_mmio_request, address) O(acrn_mmio_request, size) O(acrn_mmio_request, value)
    O(acrn_pci_request, size) O(acrn_pci_request, value) O(acrn_pci_request, bus) O(acrn_pci_request, dev)
    O(acrn_pci_request, func) O(acrn_pci_request, reg)
    O(acrn_ioeventfd, flags) O(acrn_ioeventfd, addr) O(acrn_ioeventfd, len) O(acrn_ioeventfd, data)
    O(acrn_irqfd, flags) O(acrn_irqfd, msi)
    V(ACRN_IO_REQUEST_MAX) V(ACRN_IOREQ_STATE_PROCESSING) V(ACRN_IOREQ_TYPE_PORTIO) V(ACRN_IOREQ_TYPE_MMIO)
    V(ACRN_IOREQ_TYPE_PCICFG) V(ACRN_IOEVENTFD_FLAG_PIO) V(ACRN_IOEVENTFD_FLAG_DATAMATCH)
    V(ACRN_IOEVENTFD_FLAG_DEASSIGN) V(ACRN_IRQFD_FLAG_DEASSIGN)
    printf("\"end\": 0}\n");
    return 0;
}
"""

REGISTERS = BootRegisters(
    rip=0x1122_3344_5566_7788,
    code=Segment(selector=0x10, base=0x1000, limit=0x1234_5678, access=0xC09B),
    data=Segment(selector=0x18, access=0xC093),
    cr0=0x8000_0031,
    cr3=0x10_0000,
    cr4=0x20,
    efer=0x500,
    gdt_base=0x8877_6655_4433_2211,
    gdt_limit=0x1F,
    rax=0xA1,
    rbx=0xA2,
    rsi=0xA3,
    rsp=0xA4,
)


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the compiler says about ``linux/acrn.h``."""
    folder: Path = tmp_path_factory.mktemp("header")
    (folder / "facts.c").write_text(PROGRAM)
    try:
        subprocess.run(["cc", "-Wall", "-Werror", "-o", "facts", "facts.c"], cwd=folder, check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    facts: dict[str, int] = json.loads(subprocess.run([folder / "facts"], check=True, capture_output=True).stdout)
    return facts


ADDITIONS = {"SETUP_ASYNCIO": 0x4008_A290, "SETUP_VM_EVENT_RING": 0x4008_A2A0, "SETUP_VM_EVENT_FD": 0x4004_A2A1}


def test_request_numbers_are_the_headers(header: dict[str, int]) -> None:
    for name, number in _hsm.REQUESTS.items():
        assert number == ADDITIONS.get(name, header.get(name)), name


def test_stand_in_has_the_same_numbers_from_its_own_table() -> None:
    assert {name: number for number, name in fake_abi.NUMBERS.items()} == _hsm.REQUESTS


def test_constants_are_the_headers(header: dict[str, int]) -> None:
    assert header["ACRN_IO_REQUEST_MAX"] == _hsm.MAX_VCPUS == 16
    assert (header["ACRN_IOREQ_TYPE_PORTIO"], header["ACRN_IOREQ_TYPE_MMIO"]) == (_hsm.PIO, _hsm.MMIO)
    assert (header["ACRN_IOREQ_TYPE_PCICFG"], 3) == (_hsm.PCI_CONFIG, _hsm.WRITE_PROTECTED)
    flags = [header[f"ACRN_IOEVENTFD_FLAG_{name}"] for name in ("PIO", "DATAMATCH", "DEASSIGN")]
    assert [*flags, 8] == [
        _hsm.IOEVENTFD_PIO,
        _hsm.IOEVENTFD_DATAMATCH,
        _hsm.IOEVENTFD_DEASSIGN,
        _hsm.IOEVENTFD_ASYNCIO,
    ]


def field(header: dict[str, int], name: str, data: bytes, code: str, base: int = 0) -> int:
    return int(struct.unpack_from("<" + code, data, base + header[name])[0])


def test_vm_creation_has_the_headers_layout(header: dict[str, int]) -> None:
    data = _hsm.vm_creation(b"a name", 0x1122, 0x33_4455_6677_8899, 0xAA_BBCC)
    at = header["acrn_vm_creation.uuid"]
    assert len(data) == header["sizeof acrn_vm_creation"]
    assert data[at : at + 16] == b"a name".ljust(16, b"\0")
    assert field(header, "acrn_vm_creation.vm_flag", data, "Q") == 0x1122
    assert field(header, "acrn_vm_creation.ioreq_buf", data, "Q") == 0x33_4455_6677_8899
    assert field(header, "acrn_vm_creation.cpu_affinity", data, "Q") == 0xAA_BBCC
    struct.pack_into("<H", data, 0, 7)
    struct.pack_into("<H", data, header["acrn_vm_creation.vcpu_num"], 5)
    assert _hsm.created_vm(data) == (7, 5)


def test_name_longer_than_its_field_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 16"):
        _hsm.vm_creation(b"x" * 17, 0, 0, 0)


def test_vcpu_regs_have_the_headers_layout(header: dict[str, int]) -> None:
    data = _hsm.vcpu_regs(0, REGISTERS)
    base = header["acrn_vcpu_regs.vcpu_regs"]
    assert len(data) == header["sizeof acrn_vcpu_regs"]
    expected = {"rip": REGISTERS.rip, "cr0": REGISTERS.cr0, "cr3": REGISTERS.cr3, "cr4": 0x20, "ia32_efer": 0x500}
    for name, value in {**expected, "cs_base": 0x1000, "rflags": 0}.items():
        assert field(header, f"acrn_regs.{name}", data, "Q", base) == value, name
    for name, value in {"cs_ar": 0xC09B, "cs_limit": 0x1234_5678}.items():
        assert field(header, f"acrn_regs.{name}", data, "I", base) == value, name
    for name in ("ss", "ds", "es", "fs", "gs"):
        assert field(header, f"acrn_regs.{name}_sel", data, "H", base) == 0x18, name
    assert field(header, "acrn_regs.cs_sel", data, "H", base) == 0x10
    for name, value in {"rax": 0xA1, "rbx": 0xA2, "rsi": 0xA3, "rsp": 0xA4}.items():
        assert field(header, f"acrn_gp_regs.{name}", data, "Q", base) == value, name
    at = base + header["acrn_regs.gdt"]
    assert struct.unpack_from("<HQ", data, at) == (0x1F, REGISTERS.gdt_base)
    assert struct.unpack_from("<HQ", data, base + header["acrn_regs.idt"]) == (0, 0)


def test_real_mode_entry_has_the_interrupt_table_of_a_reset() -> None:
    real = BootRegisters(
        rip=0xFFF0,
        code=Segment(selector=0xF000, base=0xFFFF_0000, limit=0xFFFF, access=0x9F),
        data=Segment(selector=0, limit=0xFFFF, access=0x93),
        cr0=0x30,
        gdt_limit=0xFFFF,
    )
    fields = fake_abi.VCPU_REGS.unpack(_hsm.vcpu_regs(0, real))
    assert fields[17:21] == (0xFFFF, 0, 0xFFFF, 0)
    assert (fields[21], fields[22], fields[23], fields[32], fields[33], fields[37]) == (
        0xFFF0,
        0xFFFF_0000,
        0x30,
        0x9F,
        0xFFFF,
        0xF000,
    )


def test_memory_segment_has_the_headers_layout(header: dict[str, int]) -> None:
    data = _hsm.ram(0x1_0000_0000, 0x7F00_0000_0000, 0x20_0000)
    assert len(data) == header["sizeof acrn_vm_memmap"]
    assert field(header, "acrn_vm_memmap.attr", data, "I") == 7  # read, write, execute; no cache type
    assert field(header, "acrn_vm_memmap.user_vm_pa", data, "Q") == 0x1_0000_0000
    assert field(header, "acrn_vm_memmap.vma_base", data, "Q") == 0x7F00_0000_0000
    assert field(header, "acrn_vm_memmap.len", data, "Q") == 0x20_0000


def test_bindings_and_messages_have_the_headers_layout(header: dict[str, int]) -> None:
    kick = _hsm.ioeventfd(5, 3, 0x2010, 2, 9)
    assert len(kick) == header["sizeof acrn_ioeventfd"]
    values = [field(header, f"acrn_ioeventfd.{name}", kick, c) for name, c in (("flags", "I"), ("len", "I"))]
    assert values == [3, 2]
    assert [field(header, f"acrn_ioeventfd.{name}", kick, "Q") for name in ("addr", "data")] == [0x2010, 9]
    call = _hsm.irqfd(6, 0xFEE0_1000, 0x41, False)
    assert len(call) == header["sizeof acrn_irqfd"]
    assert field(header, "acrn_irqfd.flags", call, "I") == header["ACRN_IRQFD_FLAG_DEASSIGN"]
    assert struct.unpack_from("<QQ", call, header["acrn_irqfd.msi"]) == (0xFEE0_1000, 0x41)
    assert (_hsm.msi_entry(1, 2), _hsm.ioreq_notify(3, 4)) == (struct.pack("<QQ", 1, 2), struct.pack("<HHI", 3, 0, 4))
    assert len(_hsm.msi_entry(0, 0)) == header["sizeof acrn_msi_entry"]
    assert len(_hsm.ioreq_notify(0, 0)) == header["sizeof acrn_ioreq_notify"]


def test_request_page_has_the_headers_layout_where_the_stand_in_reads_it(header: dict[str, int]) -> None:
    assert header["sizeof acrn_io_request_buffer"] == fake_hsm.PAGE
    assert header["sizeof acrn_io_request"] == fake_acrn_vm.SLOT
    assert header["acrn_io_request.reqs"] == fake_acrn_vm.REQUEST
    assert header["acrn_io_request.kernel_handled"] == fake_acrn_vm.HANDLED
    assert header["acrn_io_request.processed"] == fake_acrn_vm.STATE
    assert header["ACRN_IOREQ_STATE_PROCESSING"] == fake_acrn_vm.PROCESSING
    offsets = [
        header[f"acrn_{kind}_request.{name}"] for kind in ("pio", "mmio") for name in ("address", "size", "value")
    ]
    assert offsets == [8, 16, 24] * 2
    pci = [header[f"acrn_pci_request.{name}"] for name in ("size", "value", "bus", "dev", "func", "reg")]
    assert pci == [16, 24, 28, 32, 36, 40]


def test_power_states_are_decoded_by_the_headers_sizes(header: dict[str, int]) -> None:
    assert (
        header["sizeof acrn_pstate_data"],
        header["sizeof acrn_cstate_data"],
    ) == (_hsm.PX_DATA_SIZE, _hsm.CX_DATA_SIZE)
    assert _hsm.pstate(bytearray(struct.pack("<6Q", 2400, 15000, 10, 11, 0x1800, 0x1801))) == (
        2400, 15000, 10, 11, 0x1800, 0x1801,
    )  # fmt: skip
    packed = struct.pack("<BBBBQ B3x I 4x Q", 0x7F, 1, 2, 3, 0x60, 2, 151, 500)
    assert _hsm.cstate(bytearray(packed)) == ((0x7F, 1, 2, 3, 0x60), 2, 151, 500)


@pytest.mark.parametrize(
    ("structure", "size"),
    [(vhm.API_VERSION, 8), (vhm.CREATE_VCPU, 8), (vhm.MEMMAP, 40), (vhm.NOTIFY, 8)],
)
def test_structures_of_2018_have_their_sizes(structure: struct.Struct, size: int) -> None:
    assert structure.size == size


def test_numbers_of_2018_say_nothing_but_the_call() -> None:
    assert vhm.REQUESTS["CREATE_VM"] == 0x4300_0010
    assert vhm.REQUESTS["IRQFD"] == 0x4300_0071
    assert set(vhm.REQUESTS) >= set(_hsm.REQUESTS) - set(ADDITIONS)
