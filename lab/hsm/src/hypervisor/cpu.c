/* A vCPU as the hypervisor makes it: CPUID, the state after power-on, the entry state of SET_VCPU_REGS. */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define MAX_LEAVES 256
#define HYPERVISOR_LEAF 0x40000000u
#define FEATURES_LEAF 0x40000001u
#define TIMING_LEAF 0x40000010u
#define CPUID_HYPERVISOR (1u << 31)
#define CPUID_TSC_DEADLINE (1u << 24)
#define CPUID_HTT (1u << 28)

/* Attributes the hypervisor gives where acrn_regs has none (ACRN: arch/x86/guest/vcpu.c). */
#define REAL_MODE_DATA 0x93u
#define PROTECTED_MODE_DATA 0xc093u
#define LDT 0x82u
#define TSS_BUSY 0x8bu

static uint32_t core_bits(const struct vm *vm) {
    uint32_t most = 0, bits = 0;

    for (int i = 0; i < vm->vcpu_num; i++)
        most = vm->vcpus[i].apic_id > most ? vm->vcpus[i].apic_id : most;
    while (most >> bits)
        bits++;
    return bits;
}

/* One package, a core a vCPU. */
static void topology(const struct vcpu *vcpu, struct kvm_cpuid_entry2 *e) {
    const uint32_t bits = core_bits(vcpu->vm), cores = vcpu->vm->vcpu_num;

    switch (e->function) {
    case 1:
        e->ebx = (e->ebx & 0xffff) | vcpu->apic_id << 24 | (cores > 1 ? 1u << bits : 0) << 16;
        e->ecx |= CPUID_HYPERVISOR | CPUID_TSC_DEADLINE;
        e->edx = cores > 1 ? e->edx | CPUID_HTT : e->edx & ~CPUID_HTT;
        break;
    case 4:
    case 0x8000001d:
        if (e->eax & 0x1f)
            e->eax = (e->eax & 0x3fff) | ((e->eax >> 5 & 7) >= 3 ? ((1u << bits) - 1) << 14 : 0) |
                     (e->function == 4 ? ((1u << bits) - 1) << 26 : 0);
        break;
    case 0xb:
    case 0x1f:
        e->eax = e->index == 0 ? 0 : bits;
        e->ebx = e->index == 0 ? 1 : cores;
        e->ecx = e->index == 0 ? 1u << 8 : e->index == 1 ? 2u << 8 | 1 : e->index;
        e->edx = vcpu->apic_id;
        if (e->index > 1)
            e->eax = e->ebx = 0;
        break;
    case 0x80000008:
        e->ecx = (e->ecx & ~0xf0ffu) | bits << 12 | (cores - 1);
        break;
    case 0x8000001e:
        e->eax = vcpu->apic_id;
        e->ebx = vcpu->apic_id & 0xff;
        e->ecx = 0;
        break;
    }
}

static long set_cpuid(struct vcpu *vcpu, int kvm_fd) {
    struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + MAX_LEAVES * sizeof(*table->entries));
    uint32_t kept = 0;
    uint32_t khz = (uint32_t)ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
    long result;

    table->nent = MAX_LEAVES - 3;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, table) < 0) {
        free(table);
        violation("KVM_GET_SUPPORTED_CPUID: errno %d", errno);
        return set_failed(EINVAL);
    }
    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entries[i];

        if (e->function >= HYPERVISOR_LEAF && e->function < 0x80000000u)
            continue; /* KVM's own */
        topology(vcpu, e);
        table->entries[kept++] = *e;
    }
    table->entries[kept] = (struct kvm_cpuid_entry2){.function = HYPERVISOR_LEAF, .eax = TIMING_LEAF};
    memcpy(&table->entries[kept].ebx, "ACRN", 4);
    memcpy(&table->entries[kept].ecx, "ACRN", 4);
    memcpy(&table->entries[kept++].edx, "ACRN", 4);
    table->entries[kept++] = (struct kvm_cpuid_entry2){.function = FEATURES_LEAF};
    table->entries[kept++] = (struct kvm_cpuid_entry2){.function = TIMING_LEAF, .eax = khz};
    table->nent = kept;
    result = ioctl(vcpu->fd, KVM_SET_CPUID2, table);
    free(table);
    if (result < 0)
        violation("KVM_SET_CPUID2: errno %d", errno);
    return result;
}

static long set_msrs(struct vcpu *vcpu) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[2];
    } msrs = {{.nmsrs = 2}, {{.index = 0x1a0, .data = 1}, {.index = 0x2ff, .data = 1 << 11 | 6}}};

    /* IA32_MISC_ENABLE: fast strings; IA32_MTRR_DEF_TYPE: enabled, write-back. Hosts may lack the first. */
    return ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) < 0 ? -1 : 0;
}

/* LINT0 of the boot processor is wired to the PICs and LINT1 to NMI, masks open (MP specification 1.4, 3.6.2). */
static long wire_lint(struct vcpu *vcpu) {
    const uint32_t lint0 = vcpu->id == 0 ? 7u << 8 : 1u << 16, lint1 = 4u << 8;
    struct kvm_lapic_state lapic;

    if (ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic) < 0)
        return -1;
    memcpy(lapic.regs + 0x350, &lint0, sizeof(lint0));
    memcpy(lapic.regs + 0x360, &lint1, sizeof(lint1));
    return ioctl(vcpu->fd, KVM_SET_LAPIC, &lapic);
}

long cpu_setup(struct vcpu *vcpu, int kvm_fd) {
    if (set_cpuid(vcpu, kvm_fd) < 0)
        return -1;
    if (set_msrs(vcpu) < 0 || wire_lint(vcpu) < 0) {
        violation("setting up vCPU %d: errno %d", vcpu->id, errno);
        return set_failed(EINVAL);
    }
    return 0;
}

static struct kvm_segment segment(uint16_t selector, uint64_t base, uint32_t limit, uint32_t attributes) {
    return (struct kvm_segment){
        .selector = selector,
        .base = base,
        .limit = limit,
        .type = attributes & 0xf,
        .s = attributes >> 4 & 1,
        .dpl = attributes >> 5 & 3,
        .present = attributes >> 7 & 1,
        .avl = attributes >> 12 & 1,
        .l = attributes >> 13 & 1,
        .db = attributes >> 14 & 1,
        .g = attributes >> 15 & 1,
    };
}

static void set_segments(struct kvm_sregs *s, const struct acrn_regs *r) {
    const bool protected_mode = r->cr0 & 1;
    const uint32_t limit = protected_mode ? 0xffffffff : 0xffff;
    const uint32_t data = protected_mode ? PROTECTED_MODE_DATA : REAL_MODE_DATA;

    s->cs = segment(r->cs_sel, r->cs_base, r->cs_limit, r->cs_ar);
    s->ss = segment(r->ss_sel, 0, limit, data); /* no base from the selector, in real mode neither */
    s->ds = segment(r->ds_sel, 0, limit, data);
    s->es = segment(r->es_sel, 0, limit, data);
    s->fs = segment(r->fs_sel, 0, limit, data);
    s->gs = segment(r->gs_sel, 0, limit, data);
    s->ldt = segment(r->ldt_sel, 0, 0xffff, LDT);
    s->tr = segment(r->tr_sel, 0, 0xffff, TSS_BUSY);
    s->gdt = (struct kvm_dtable){.base = r->gdt.base, .limit = r->gdt.limit};
    s->idt = (struct kvm_dtable){.base = r->idt.base, .limit = r->idt.limit};
}

long cpu_set_boot_regs(struct vcpu *vcpu, const struct acrn_regs *r) {
    const struct acrn_gp_regs *g = &r->gprs;
    struct kvm_regs regs = {
        .rax = g->rax, .rcx = g->rcx, .rdx = g->rdx, .rbx = g->rbx, .rsp = g->rsp, .rbp = g->rbp,
        .rsi = g->rsi, .rdi = g->rdi, .r8 = g->r8,   .r9 = g->r9,   .r10 = g->r10, .r11 = g->r11,
        .r12 = g->r12, .r13 = g->r13, .r14 = g->r14, .r15 = g->r15, .rip = r->rip,
        .rflags = r->rflags ? (r->rflags & ~0x8d5ull) | 2 : 2, /* the hypervisor clears the arithmetic flags */
    };
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    set_segments(&sregs, r);
    sregs.cr0 = r->cr0;
    sregs.cr3 = r->cr3;
    sregs.cr4 = r->cr4;
    sregs.efer = r->ia32_efer;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0) {
        violation("SET_VCPU_REGS: KVM refuses the state: errno %d", errno);
        return -1;
    }
    return 0;
}
