"""A guest program as a list of steps: assembled to 64-bit code for a real vCPU, or interpreted on the simulated one."""

import struct

import attrs

DONE_PORT = 0x5F0  # written when the program has ended
VECTOR_PORT = 0x5F1  # an interrupt handler writes its vector here
VECTORS = (0x40, 0x41, 0x42)

# Where things lie in the guest's 4 MiB of RAM.
RAM_SIZE = 4 << 20
GDT = 0x500
IDTR, ZERO_IDTR = 0x600, 0x620
IDT = 0x1000
STACK_TOP = 0x7000
CODE = 0x8000
HANDLERS = 0x1_0000
RESULTS = 0x2_0000
STRINGS = 0x3_0000
COUNTER = 0x4_0000
PML4 = 0x10_0000

CODE_SELECTOR, DATA_SELECTOR = 0x08, 0x10
LAPIC_SPURIOUS, LAPIC_EOI = 0xFEE0_00F0, 0xFEE0_00B0
IOAPIC_SELECT = 0xFEC0_0000


@attrs.frozen
class Out:
    """OUT of *size* bytes."""

    port: int
    size: int
    value: int


@attrs.frozen
class OutString:
    """REP OUTS: *data* in elements of *size* bytes."""

    port: int
    size: int
    data: bytes


@attrs.frozen
class In:
    """IN of *size* bytes; the value becomes a result."""

    port: int
    size: int


@attrs.frozen
class Store:
    """Store of *size* bytes at a physical address."""

    gpa: int
    size: int
    value: int


@attrs.frozen
class Load:
    """Load of *size* bytes; the value becomes a result."""

    gpa: int
    size: int


@attrs.frozen
class RouteLine:
    """Program the IOAPIC: pin *gsi* raises *vector* here, level-triggered unless *edge*; PCI's pins are active low."""

    gsi: int
    vector: int
    edge: bool = False


@attrs.frozen
class AwaitInterrupts:
    """Sleep until so many interrupts have been handled in all."""

    total: int


@attrs.frozen
class Spin:
    """Loop for ever without an exit."""


@attrs.frozen
class TripleFault:
    """An exception without an IDT."""


@attrs.frozen
class Raw:
    """Machine code, for real vCPUs only; what it leaves in RAX becomes a result."""

    code: bytes


Step = Out | OutString | In | Store | Load | RouteLine | AwaitInterrupts | Spin | TripleFault | Raw


def _imm32(value: int) -> bytes:
    return struct.pack("<I", value)


def _imm64(value: int) -> bytes:
    return struct.pack("<Q", value)


def _rbx(value: int) -> bytes:
    return b"\x48\xbb" + _imm64(value)  # mov rbx, imm64


def _rax(value: int) -> bytes:
    return b"\x48\xb8" + _imm64(value)  # mov rax, imm64


def _edx(value: int) -> bytes:
    return b"\xba" + _imm32(value)  # mov edx, imm32


OUT_DX = {1: b"\xee", 2: b"\x66\xef", 4: b"\xef"}  # out dx, al / ax / eax
REP_OUTS = {1: b"\xf3\x6e", 2: b"\xf3\x66\x6f", 4: b"\xf3\x6f"}
IN_DX = {1: b"\xec", 2: b"\x66\xed", 4: b"\xed"}
STORE_RBX = {1: b"\x88\x03", 2: b"\x66\x89\x03", 4: b"\x89\x03", 8: b"\x48\x89\x03"}  # mov [rbx], al / ax / eax / rax
LOAD_RBX = {1: b"\x8a\x03", 2: b"\x66\x8b\x03", 4: b"\x8b\x03", 8: b"\x48\x8b\x03"}
CLEAR_RAX = b"\x48\x31\xc0"  # xor rax, rax
HALT = b"\xfa\xf4\xeb\xfc"  # cli; hlt; jmp to the cli


@attrs.define
class Assembler:
    """Turns steps into code and the data it needs."""

    code: bytearray = attrs.field(factory=bytearray)
    strings: bytearray = attrs.field(factory=bytearray)
    results: int = 0

    def program(self, steps: tuple[Step, ...]) -> None:
        self.code += _rbx(IDTR) + b"\x0f\x01\x1b"  # lidt [rbx]
        self.code += _rbx(LAPIC_SPURIOUS) + b"\xc7\x03" + _imm32(0x1FF)  # mov dword [rbx], enabled | vector 0xFF
        for step in steps:
            getattr(self, "_" + type(step).__name__.lower())(step)
        self._out(Out(DONE_PORT, 1, 1))
        self.code += HALT

    def _out(self, step: Out) -> None:
        self.code += _edx(step.port) + _rax(step.value) + OUT_DX[step.size]

    def _outstring(self, step: OutString) -> None:
        self.code += b"\x48\xbe" + _imm64(STRINGS + len(self.strings))  # mov rsi, imm64
        self.code += b"\xb9" + _imm32(len(step.data) // step.size)  # mov ecx, imm32
        self.code += _edx(step.port) + REP_OUTS[step.size]
        self.strings += step.data

    def _in(self, step: In) -> None:
        self.code += CLEAR_RAX + _edx(step.port) + IN_DX[step.size]
        self._result()

    def _store(self, step: Store) -> None:
        self.code += _rbx(step.gpa) + _rax(step.value) + STORE_RBX[step.size]

    def _load(self, step: Load) -> None:
        self.code += CLEAR_RAX + _rbx(step.gpa) + LOAD_RBX[step.size]
        self._result()

    def _routeline(self, step: RouteLine) -> None:
        register = 0x10 + 2 * step.gsi  # redirection entry: low half, then high half with the destination, APIC 0
        trigger = (0 if step.edge else 1 << 15) | (1 << 13 if step.gsi >= 16 else 0)  # KVM ignores polarity
        for index, value in ((register + 1, 0), (register, trigger | step.vector)):
            self.code += _rbx(IOAPIC_SELECT) + b"\xc7\x03" + _imm32(index)  # mov dword [rbx], index
            self.code += b"\xc7\x43\x10" + _imm32(value)  # mov dword [rbx + 0x10], value

    def _awaitinterrupts(self, step: AwaitInterrupts) -> None:
        self.code += _rbx(COUNTER)
        self.code += b"\xfa"  # again: cli
        self.code += b"\x81\x3b" + _imm32(step.total)  # cmp dword [rbx], total
        self.code += b"\x73\x04"  # jae past the jmp
        self.code += b"\xfb\xf4"  # sti; hlt: nothing can come between them
        self.code += b"\xeb\xf3"  # jmp again

    def _spin(self, _: Spin) -> None:
        self.code += b"\xeb\xfe"  # jmp to itself

    def _triplefault(self, _: TripleFault) -> None:
        self.code += _rbx(ZERO_IDTR) + b"\x0f\x01\x1b\x0f\x0b"  # lidt [rbx]; ud2

    def _raw(self, step: Raw) -> None:
        self.code += step.code
        self._result()

    def _result(self) -> None:
        self.code += _rbx(RESULTS + 8 * self.results) + STORE_RBX[8]
        self.results += 1


def _handler(vector: int) -> bytes:
    return (
        b"\x50\x53\x52"  # push rax; push rbx; push rdx
        + _edx(VECTOR_PORT)
        + bytes((0xB0, vector, 0xEE))  # mov al, vector; out dx, al
        + _rbx(COUNTER)
        + b"\xff\x03"  # inc dword [rbx]
        + _rbx(LAPIC_EOI)
        + b"\xc7\x03"
        + _imm32(0)  # mov dword [rbx], 0
        + b"\x5a\x5b\x58\x48\xcf"  # pop rdx; pop rbx; pop rax; iretq
    )


def _gate(address: int) -> bytes:
    return struct.pack("<HHBBHII", address & 0xFFFF, CODE_SELECTOR, 0, 0x8E, address >> 16 & 0xFFFF, address >> 32, 0)


def _page_tables() -> bytes:
    """Identity map of the low 4 GiB by 2 MiB pages: one PML4, one PDPT, four page directories."""
    pml4 = _imm64(PML4 + 0x1000 | 3).ljust(0x1000, b"\0")
    pdpt = b"".join(_imm64(PML4 + 0x2000 + i * 0x1000 | 3) for i in range(4)).ljust(0x1000, b"\0")
    return pml4 + pdpt + b"".join(_imm64(i << 21 | 0x83) for i in range(4 * 512))


def image(steps: tuple[Step, ...]) -> tuple[dict[int, bytes], int]:
    """Return what has to lie where in RAM, and how many results the program gives."""
    assembler = Assembler()
    assembler.program(steps)
    gates = bytearray(16 * 256)
    parts = {
        GDT: _imm64(0) + _imm64(0x00AF_9B00_0000_FFFF) + _imm64(0x00CF_9300_0000_FFFF),
        IDTR: struct.pack("<HQ", 16 * 256 - 1, IDT),
        ZERO_IDTR: bytes(10),
        CODE: bytes(assembler.code),
        RESULTS: bytes(8 * max(1, assembler.results)),
        STRINGS: bytes(assembler.strings),
        COUNTER: bytes(8),
        PML4: _page_tables(),
    }
    for i, vector in enumerate(VECTORS):
        address = HANDLERS + 0x100 * i
        parts[address] = _handler(vector)
        gates[16 * vector : 16 * vector + 16] = _gate(address)
    parts[IDT] = bytes(gates)
    return parts, assembler.results
