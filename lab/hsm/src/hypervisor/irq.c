/*
 * Interrupts as ACRN's hypervisor has them: an I/O APIC of 48 pins that honours polarity, and MSIs.
 *
 * KVM's own I/O APIC has 24 pins and ignores polarity, so KVM gets only its local APICs ("split irqchip"). A pin
 * interrupts by an MSI made from its redirection entry; KVM reports the EOI of a level-triggered vector because the
 * entry stands in its routing table. Registers: 82093AA datasheet, 3.2.
 */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define MSI_BASE 0xfee00000ull

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define IOAPIC_ID 0
#define IOAPIC_VERSION 1
#define IOAPIC_ARBITRATION 2
#define IOAPIC_TABLE 0x10

#define RTE_VECTOR 0xffull
#define RTE_DELIVERY (7ull << 8)
#define RTE_LOGICAL (1ull << 11)
#define RTE_STATUS (1ull << 12)
#define RTE_ACTIVE_LOW (1ull << 13)
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define DELIVERY_EXTINT (7ull << 8)

static void message(uint64_t rte, struct kvm_irq_routing_msi *out) {
    out->address_lo = (uint32_t)(MSI_BASE | (rte >> 56) << 12 | (rte & RTE_LOGICAL ? 4 : 0));
    out->address_hi = 0;
    out->data = (uint32_t)((rte & (RTE_VECTOR | RTE_DELIVERY)) | (rte & RTE_LEVEL ? 1u << 15 | 1u << 14 : 0));
}

static int signal_msi(struct vm *vm, uint32_t lo, uint32_t hi, uint32_t data) {
    struct kvm_msi msi = {.address_lo = lo, .address_hi = hi, .data = data};

    return vm->vm_fd >= 0 ? ioctl(vm->vm_fd, KVM_SIGNAL_MSI, &msi) : 0;
}

/* The table is level-triggered pins, for their EOIs, and irqfds. With irq_lock held. */
void install_routes(struct vm *vm) {
    static const size_t most = IOAPIC_PINS + MAX_BINDINGS;
    struct kvm_irq_routing *table;
    struct kvm_irq_routing_entry *entry;

    if (vm->vm_fd < 0)
        return;
    table = calloc(1, sizeof(*table) + most * sizeof(*entry));
    entry = table->entries;
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        if (!(vm->rte[pin] & RTE_LEVEL) || (vm->rte[pin] & RTE_VECTOR) < 16)
            continue;
        *entry = (struct kvm_irq_routing_entry){.gsi = pin, .type = KVM_IRQ_ROUTING_MSI};
        message(vm->rte[pin], &entry++->u.msi);
    }
    for (uint32_t i = 0; i < MAX_BINDINGS; i++) {
        const struct irqfd *p = &vm->irqfds[i];

        if (p->id == 0)
            continue;
        *entry = (struct kvm_irq_routing_entry){.gsi = IOAPIC_PINS + i, .type = KVM_IRQ_ROUTING_MSI};
        entry->u.msi.address_lo = (uint32_t)p->msi.msi_addr;
        entry->u.msi.address_hi = (uint32_t)(p->msi.msi_addr >> 32);
        entry->u.msi.data = (uint32_t)p->msi.msi_data;
        entry++;
    }
    table->nr = (uint32_t)(entry - table->entries);
    if (ioctl(vm->vm_fd, KVM_SET_GSI_ROUTING, table) < 0)
        violation("KVM_SET_GSI_ROUTING: errno %d", errno);
    free(table);
}

long inject_msi(struct vm *vm, uint64_t addr, uint64_t data) {
    __atomic_add_fetch(&vm->count.msi, 1, __ATOMIC_RELAXED);
    if ((addr & ~0xfffffull) != MSI_BASE) {
        violation("INJECT_MSI: address %#llx is no MSI", (unsigned long long)addr);
        return set_failed(EPERM);
    }
    signal_msi(vm, (uint32_t)addr, 0, (uint32_t)data); /* one to nobody vanishes */
    return 0;
}

void ioapic_reset(struct vm *vm) {
    pthread_mutex_lock(&vm->irq_lock);
    for (int pin = 0; pin < IOAPIC_PINS; pin++)
        vm->rte[pin] = RTE_MASKED; /* active high: the levels of the lines stay */
    vm->ioregsel = vm->ioapic_id = 0;
    pthread_mutex_unlock(&vm->irq_lock);
}

static bool is_active(const struct vm *vm, uint32_t pin) {
    bool high = vm->pin_state >> pin & 1;

    return vm->rte[pin] & RTE_ACTIVE_LOW ? !high : high;
}

static void generate(struct vm *vm, uint32_t pin) {
    struct kvm_irq_routing_msi msi = {0};
    uint64_t *rte = &vm->rte[pin];

    if ((*rte & RTE_MASKED) || (*rte & RTE_DELIVERY) == DELIVERY_EXTINT)
        return;
    if (*rte & RTE_LEVEL) {
        if (*rte & RTE_REMOTE_IRR)
            return;
        *rte |= RTE_REMOTE_IRR;
    }
    message(*rte, &msi);
    signal_msi(vm, msi.address_lo, msi.address_hi, msi.data);
}

/* A pin interrupts when its level becomes the one its entry calls active. */
static void set_pin(struct vm *vm, uint32_t pin, bool high) {
    bool was_high = vm->pin_state >> pin & 1;

    vm->pin_state = (vm->pin_state & ~(1ull << pin)) | (uint64_t)high << pin;
    if (was_high != high && is_active(vm, pin))
        generate(vm, pin);
    if (pin < PIC_PINS)
        pic_set_line(vm, pin == 2 ? 0 : (int)pin, high); /* the timer: I/O APIC pin 2, PIC pin 0 */
}

/* 0 high, 1 low, 2 rising pulse, 3 falling pulse. */
void set_line(struct vm *vm, uint32_t gsi, uint32_t operation) {
    bool interrupts;

    pthread_mutex_lock(&vm->irq_lock);
    vm->count.irqline++;
    if (operation <= 1) {
        set_pin(vm, gsi, operation == 0);
    } else {
        set_pin(vm, gsi, operation == 2);
        set_pin(vm, gsi, operation != 2);
    }
    interrupts = pic_output(vm);
    pthread_mutex_unlock(&vm->irq_lock);
    if (interrupts)
        guest_kick(&vm->vcpus[0]); /* it may be halted inside KVM, which knows no PIC */
}

void ioapic_eoi(struct vm *vm, uint8_t vector) {
    pthread_mutex_lock(&vm->irq_lock);
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((vm->rte[pin] & RTE_VECTOR) != vector || !(vm->rte[pin] & RTE_REMOTE_IRR))
            continue;
        vm->rte[pin] &= ~RTE_REMOTE_IRR;
        if (is_active(vm, pin))
            generate(vm, pin);
    }
    pthread_mutex_unlock(&vm->irq_lock);
}

static uint32_t read_window(const struct vm *vm) {
    uint32_t index = vm->ioregsel;

    if (index == IOAPIC_ID || index == IOAPIC_ARBITRATION)
        return vm->ioapic_id << 24;
    if (index == IOAPIC_VERSION)
        return (IOAPIC_PINS - 1) << 16 | 0x11;
    if (index >= IOAPIC_TABLE && index < IOAPIC_TABLE + 2 * IOAPIC_PINS)
        return (uint32_t)(vm->rte[(index - IOAPIC_TABLE) / 2] >> (index & 1 ? 32 : 0));
    return 0;
}

static void write_window(struct vm *vm, uint32_t value) {
    uint32_t index = vm->ioregsel, pin = (index - IOAPIC_TABLE) / 2;
    uint64_t before, after;

    if (index == IOAPIC_ID)
        vm->ioapic_id = value >> 24 & 0xf;
    if (index < IOAPIC_TABLE || pin >= IOAPIC_PINS)
        return;
    before = vm->rte[pin];
    if (index & 1)
        after = (before & 0xffffffffull) | (uint64_t)value << 32;
    else
        after = (before & (~0xffffffffull | RTE_REMOTE_IRR)) | (value & ~(RTE_REMOTE_IRR | RTE_STATUS));
    if (!(after & RTE_LEVEL))
        after &= ~RTE_REMOTE_IRR;
    vm->rte[pin] = after;
    if (((before | after) & RTE_LEVEL) && ((before ^ after) & ~(RTE_MASKED | RTE_REMOTE_IRR)))
        install_routes(vm);
    if (!(after & (RTE_MASKED | RTE_REMOTE_IRR)) && is_active(vm, pin))
        generate(vm, pin);
}

uint32_t ioapic_read(struct vm *vm, uint64_t offset) {
    uint32_t value = 0xffffffff;

    pthread_mutex_lock(&vm->irq_lock);
    if (offset == REG_SELECT)
        value = vm->ioregsel;
    else if (offset == REG_WINDOW)
        value = read_window(vm);
    pthread_mutex_unlock(&vm->irq_lock);
    return value;
}

void ioapic_write(struct vm *vm, uint64_t offset, uint32_t value) {
    pthread_mutex_lock(&vm->irq_lock);
    if (offset == REG_SELECT)
        vm->ioregsel = value & 0xff;
    else if (offset == REG_WINDOW)
        write_window(vm, value);
    pthread_mutex_unlock(&vm->irq_lock);
}
