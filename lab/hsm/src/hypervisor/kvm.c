/* The vCPUs, on /dev/kvm: one thread each, whose exits become requests. A reset is a new KVM machine below the same VM. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define IDENTITY_MAP_PAGE 0xfffbc000ull /* pages KVM itself uses on Intel hosts; nobody else's */
#define TSS_PAGES 0xfffbd000ul
#define KICK_SIGNAL (SIGRTMAX - 1)
#define PM1A_CONTROL 0x404
#define EVENT_TRIPLE_FAULT 2
#define SLEEP_S5 (1u << 13 | 5u << 10)

static int kvm_fd = -1;

static bool is_storm(void) {
    return setting("RIG_STORM") != NULL;
}

static long failed(const char *what) {
    violation("%s: errno %d", what, errno);
    return set_failed(EINVAL);
}

long guest_set_memory(struct vm *vm, int slot, const struct memseg *segment) {
    struct kvm_userspace_memory_region region = {
        .slot = (uint32_t)slot,
        .guest_phys_addr = segment->gpa,
        .memory_size = segment->len,
        .userspace_addr = segment->hva,
    };

    if (vm->vm_fd < 0)
        return 0;
    if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return failed("KVM_SET_USER_MEMORY_REGION");
    return 0;
}

static long create_vcpu(struct vcpu *vcpu) {
    int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    vcpu->fd = ioctl(vcpu->vm->vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->apic_id);
    if (vcpu->fd < 0)
        return failed("KVM_CREATE_VCPU");
    vcpu->run_size = (size_t)size;
    vcpu->run = mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        return failed("mmap of kvm_run");
    return cpu_setup(vcpu, kvm_fd);
}

static long create_machine(struct vm *vm) {
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};
    uint64_t identity = IDENTITY_MAP_PAGE;

    if (kvm_fd < 0)
        kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm_fd < 0)
        return failed("open /dev/kvm");
    vm->vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm->vm_fd < 0)
        return failed("KVM_CREATE_VM");
    ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_PAGES);
    if (ioctl(vm->vm_fd, KVM_ENABLE_CAP, &split) < 0)
        return failed("KVM_CAP_SPLIT_IRQCHIP");
    if (vm->vcpus[0].apic_id != 0)
        ioctl(vm->vm_fd, KVM_SET_BOOT_CPU_ID, (unsigned long)vm->vcpus[0].apic_id);
    for (int i = 0; i < vm->vcpu_num; i++)
        if (create_vcpu(&vm->vcpus[i]) < 0)
            return -1;
    return 0;
}

long guest_create(struct vm *vm) {
    if (vm->state == VM_POWEROFF) {
        ioapic_reset(vm);
        pic_reset(vm);
    }
    vm->aborted = false;
    if (is_storm() || vm->vcpu_num == 0) /* in 2018 vCPUs came later: then START_VM does the rest */
        return 0;
    if (create_machine(vm) < 0) {
        guest_destroy(vm);
        return -1;
    }
    for (int i = 0; i < vm->memsegs_used; i++)
        if (vm->memsegs[i].type == ACRN_MEMMAP_RAM && vm->memsegs[i].len)
            guest_set_memory(vm, i, &vm->memsegs[i]);
    bindings_install(vm);
    return 0;
}

void guest_destroy(struct vm *vm) {
    for (int i = 0; i < vm->vcpu_num; i++) {
        struct vcpu *vcpu = &vm->vcpus[i];

        if (vcpu->fd < 0)
            continue;
        munmap(vcpu->run, vcpu->run_size);
        close(vcpu->fd);
        vcpu->fd = -1;
        vcpu->run = NULL;
    }
    if (vm->vm_fd >= 0)
        close(vm->vm_fd);
    vm->vm_fd = -1;
}

/* May this thread run guest code, and post what it does? It counts as inside until leave_guest. */
bool enter_guest(struct vcpu *vcpu) {
    struct vm *vm = vcpu->vm;

    pthread_mutex_lock(&vm->lock);
    vcpu->in_guest = vm->state == VM_RUNNING;
    pthread_mutex_unlock(&vm->lock);
    return vcpu->in_guest;
}

void leave_guest(struct vcpu *vcpu) {
    struct vm *vm = vcpu->vm;

    pthread_mutex_lock(&vm->lock);
    vcpu->in_guest = false;
    pthread_cond_broadcast(&vm->left_guest);
    pthread_mutex_unlock(&vm->lock);
}

static bool do_pio(struct vcpu *vcpu) {
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    struct vm *vm = vcpu->vm;

    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        struct access access = {
            .type = ACRN_IOREQ_TYPE_PORTIO,
            .write = run->io.direction == KVM_EXIT_IO_OUT,
            .address = run->io.port,
            .size = run->io.size,
        };

        if (access.write)
            memcpy(&access.value, data, access.size);
        if (pic_port(run->io.port)) {
            pthread_mutex_lock(&vm->irq_lock);
            if (access.write)
                pic_write(vm, run->io.port, (uint8_t)access.value);
            else
                access.value = pic_read(vm, run->io.port);
            pthread_mutex_unlock(&vm->irq_lock);
        } else if (!ioreq_post(vcpu, &access)) {
            return false;
        }
        if (!access.write)
            memcpy(data, &access.value, access.size);
    }
    return true;
}

static uint32_t part_of(uint64_t gpa, uint32_t left) {
    uint32_t size = 8;

    while (size > left || gpa & (size - 1))
        size >>= 1;
    return size;
}

static bool do_mmio(struct vcpu *vcpu) {
    struct kvm_run *run = vcpu->run;
    uint32_t left = run->mmio.len, size;
    uint64_t gpa = run->mmio.phys_addr;
    uint8_t *data = run->mmio.data;

    for (; left > 0; left -= size, gpa += size, data += size) {
        struct access access = {.type = ACRN_IOREQ_TYPE_MMIO, .write = run->mmio.is_write, .address = gpa};

        size = left == 1 || left == 2 || left == 4 || left == 8 ? left : part_of(gpa, left);
        access.size = size;
        if (access.write)
            memcpy(&access.value, data, size);
        if (gpa >= IOAPIC_BASE && gpa < IOAPIC_BASE + 0x1000) {
            if (access.write)
                ioapic_write(vcpu->vm, gpa - IOAPIC_BASE, (uint32_t)access.value);
            else
                access.value = ioapic_read(vcpu->vm, gpa - IOAPIC_BASE);
        } else if (!ioreq_post(vcpu, &access)) {
            return false;
        }
        if (!access.write)
            memcpy(data, &access.value, size);
    }
    return true;
}

/* ACRN ends a guest that faults three times by an event and the power-off it would write itself. */
static bool triple_fault(struct vcpu *vcpu) {
    struct access off = {
        .type = ACRN_IOREQ_TYPE_PORTIO, .write = true, .address = PM1A_CONTROL, .size = 2, .value = SLEEP_S5};

    send_event(vcpu->vm, EVENT_TRIPLE_FAULT);
    ioreq_post(vcpu, &off);
    return false;
}

static bool handle_exit(struct vcpu *vcpu) {
    const struct kvm_run *run = vcpu->run;

    __atomic_add_fetch(&vcpu->vm->count.exits, 1, __ATOMIC_RELAXED);
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        return do_pio(vcpu);
    case KVM_EXIT_MMIO:
        return do_mmio(vcpu);
    case KVM_EXIT_IOAPIC_EOI:
        ioapic_eoi(vcpu->vm, run->eoi.vector);
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return true;
    case KVM_EXIT_SHUTDOWN:
        return triple_fault(vcpu);
    default:
        violation("vCPU %d: KVM exit %u, suberror %u", vcpu->id, run->exit_reason,
                  run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0);
        return false;
    }
}

/* The PICs' interrupts reach the boot processor's LINT0; KVM says when it can take one. */
static void offer_pic_interrupt(struct vcpu *vcpu) {
    struct vm *vm = vcpu->vm;
    bool wanted;

    if (vcpu->id != 0)
        return;
    pthread_mutex_lock(&vm->irq_lock);
    wanted = pic_output(vm);
    if (wanted && vcpu->run->ready_for_interrupt_injection) {
        struct kvm_interrupt interrupt = {.irq = pic_acknowledge(vm)};

        if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) < 0)
            violation("KVM_INTERRUPT: errno %d", errno);
        wanted = pic_output(vm);
    }
    vcpu->run->request_interrupt_window = wanted;
    pthread_mutex_unlock(&vm->irq_lock);
}

static void *run_vcpu(void *argument) {
    struct vcpu *vcpu = argument;
    struct timespec now = {0, 0};
    bool goes_on = true;
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    if (vcpu->id == 0 && cpu_set_boot_regs(vcpu, &vcpu->vm->boot_regs) < 0)
        return NULL;
    while (goes_on && enter_guest(vcpu)) {
        int result, error;

        offer_pic_interrupt(vcpu);
        result = ioctl(vcpu->fd, KVM_RUN, 0);
        error = errno;
        if (result == 0) {
            goes_on = handle_exit(vcpu);
        } else if (error == EINTR) {
            sigtimedwait(&kick, NULL, &now);
        } else if (error != EAGAIN) { /* EAGAIN: this processor got its INIT or SIPI */
            violation("vCPU %d: KVM_RUN: errno %d", vcpu->id, error);
            goes_on = false;
        }
        leave_guest(vcpu);
    }
    return NULL;
}

/* Every signal stays with the client's own threads; the kick is let in while the guest runs. */
static void admit_kick(struct vcpu *vcpu) {
    struct {
        struct kvm_signal_mask mask;
        uint8_t set[8];
    } inside = {.mask = {.len = 8}};
    uint64_t bits = ~(1ull << (KICK_SIGNAL - 1));

    memcpy(inside.mask.sigset, &bits, sizeof(bits));
    ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &inside);
}

long guest_start(struct vm *vm) {
    sigset_t all, before;
    int error = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < vm->vcpu_num && error == 0; i++) {
        struct vcpu *vcpu = &vm->vcpus[i];

        if (!is_storm())
            admit_kick(vcpu);
        error = pthread_create(&vcpu->thread, NULL, is_storm() ? storm_main : run_vcpu, vcpu);
        vcpu->started = error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 ? 0 : set_failed(error);
}

void guest_kick(struct vcpu *vcpu) {
    pthread_mutex_lock(&vcpu->vm->lock);
    if (vcpu->in_guest)
        pthread_kill(vcpu->thread, KICK_SIGNAL);
    pthread_mutex_unlock(&vcpu->vm->lock);
}

/* No vCPU runs guest code when this returns; those with a request wait for its answer, and end then. */
void guest_pause(struct vm *vm) {
    pthread_mutex_lock(&vm->lock);
    for (int i = 0; i < vm->vcpu_num; i++) {
        while (vm->vcpus[i].in_guest) {
            pthread_kill(vm->vcpus[i].thread, KICK_SIGNAL);
            pthread_cond_wait(&vm->left_guest, &vm->lock);
        }
    }
    pthread_mutex_unlock(&vm->lock);
}

void guest_stop(struct vm *vm) {
    ioreq_abort(vm);
    for (int i = 0; i < vm->vcpu_num; i++) {
        if (vm->vcpus[i].started)
            pthread_join(vm->vcpus[i].thread, NULL);
        vm->vcpus[i].started = false;
    }
}
