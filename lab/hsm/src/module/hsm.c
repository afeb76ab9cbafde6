/*
 * The module's ioctls: copies arguments in and out, checks what the kernel and the hypervisor check, keeps the order.
 *
 * A hypercall's failure is a plain -1 there, which arrives as EPERM. Life cycle (ACRN hypervisor, common/hypercall.c):
 * CREATE -> created; START: created -> running; PAUSE: created or running -> paused; RESET: paused -> created;
 * DESTROY: paused only. Registers are set in created or paused, processor states are read there.
 */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define CR0_PE (1ull << 0)
#define CR0_PG (1ull << 31)
#define CLIENT_2018 2 /* others are the kernel's own */

static const char *const STATES[] = {"absent", "created", "running", "paused"};

long set_failed(int error) {
    errno = error;
    return -1;
}

long wrong(int error, const char *what) {
    violation("%s", what);
    return set_failed(error);
}

long refused(const struct vm *vm, const char *call) {
    violation("%s of a VM that is %s", call, STATES[vm->state]);
    return set_failed(EPERM);
}

/* As copy_from_user: a bad address is an error, not a crash. */
bool copy_in(void *to, unsigned long from, size_t size) {
    struct iovec local = {to, size}, remote = {(void *)from, size};

    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size;
}

bool copy_out(unsigned long to, const void *from, size_t size) {
    struct iovec local = {(void *)from, size}, remote = {(void *)to, size};

    return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size;
}

const char *hsm_node(void) {
    return number_setting("RIG_VHM", 0) ? "/dev/acrn_vhm" : "/dev/acrn_hsm";
}

struct vm *hsm_open(int fd) {
    struct vm *vm = calloc(1, sizeof(*vm));

    report_open();
    vm->pid = getpid();
    vm->fd = fd;
    vm->vhm = number_setting("RIG_VHM", 0);
    vm->owner = vm->vhm ? CLIENT_2018 : 0;
    vm->vm_fd = vm->event_fd = -1;
    pthread_mutex_init(&vm->lock, NULL);
    pthread_mutex_init(&vm->ioreq_lock, NULL);
    pthread_mutex_init(&vm->binding_lock, NULL);
    pthread_mutex_init(&vm->irq_lock, NULL);
    pthread_cond_init(&vm->left_guest, NULL);
    trace("open", fd, "");
    return vm;
}

static long check_regs(const struct vm *vm, const struct acrn_vcpu_regs *args) {
    const struct acrn_regs *r = &args->vcpu_regs;
    uint64_t rest = 0;

    for (int i = 0; i < 3; i++)
        rest |= args->reserved[i] | r->reserved_32[i] | r->gdt.reserved[i] | r->idt.reserved[i];
    for (int i = 0; i < 4; i++)
        rest |= r->reserved_64[i];
    if (rest)
        return wrong(EINVAL, "SET_VCPU_REGS: a reserved field is not zero");
    if (vm->state == VM_RUNNING)
        return refused(vm, "SET_VCPU_REGS");
    if (args->vcpu_id >= vm->vcpu_num)
        return wrong(EPERM, "SET_VCPU_REGS: no such vCPU");
    if ((r->cr0 & CR0_PG) && !(r->cr0 & CR0_PE))
        return wrong(EPERM, "SET_VCPU_REGS: paging without protection");
    return 0;
}

static long set_vcpu_regs(struct vm *vm, unsigned long argument) {
    struct acrn_vcpu_regs args;
    const struct acrn_regs *r = &args.vcpu_regs;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "SET_VCPU_REGS: bad address");
    result = check_regs(vm, &args);
    if (result == 0 && args.vcpu_id == 0) { /* the others start by INIT and SIPI */
        vm->boot_regs = *r;
        vm->regs_set = true;
    }
    trace("SET_VCPU_REGS", result,
          "\"vcpu\":%u,\"rip\":%llu,\"rsi\":%llu,\"cr0\":%llu,\"cs_sel\":%u,\"cs_base\":%llu,\"cs_ar\":%u,"
          "\"cs_limit\":%u,\"ds_sel\":%u,\"gdt_limit\":%u,\"efer\":%llu",
          args.vcpu_id, (unsigned long long)r->rip, (unsigned long long)r->gprs.rsi, (unsigned long long)r->cr0,
          r->cs_sel, (unsigned long long)r->cs_base, r->cs_ar, r->cs_limit, r->ds_sel, r->gdt.limit,
          (unsigned long long)r->ia32_efer);
    return result;
}

static long start_vm(struct vm *vm) {
    if (vm->state != VM_CREATED)
        return refused(vm, "START_VM");
    if (!vm->client)
        violation("START_VM without a request client: the first request has nowhere to go");
    if (!vm->regs_set)
        violation("START_VM before SET_VCPU_REGS");
    if (vm->vcpu_num == 0)
        return wrong(EPERM, "START_VM of a VM without vCPUs");
    if (vm->vm_fd < 0 && guest_create(vm) < 0)
        return -1;
    vm->state = VM_RUNNING;
    if (guest_start(vm) < 0) {
        vm->state = VM_CREATED;
        return -1;
    }
    return 0;
}

static long pause_vm(struct vm *vm) {
    bool running = vm->state == VM_RUNNING;

    pthread_mutex_lock(&vm->lock);
    vm->state = VM_PAUSED;
    pthread_mutex_unlock(&vm->lock);
    if (running)
        guest_pause(vm);
    return 0;
}

static long reset_vm(struct vm *vm) {
    if (vm->state != VM_PAUSED)
        return refused(vm, "RESET_VM");
    if (ioreq_outstanding(vm))
        violation("RESET_VM with a request unanswered: CLEAR_VM_IOREQ is missing");
    guest_stop(vm);
    guest_destroy(vm);
    ioapic_reset(vm);
    pic_reset(vm);
    vm->regs_set = false;
    if (guest_create(vm) < 0)
        return -1;
    vm->state = VM_CREATED;
    return 0;
}

static long destroy_vm(struct vm *vm) {
    if (vm->state != VM_PAUSED)
        return refused(vm, "DESTROY_VM");
    ioreq_client_destroy(vm);
    guest_stop(vm);
    bindings_release(vm);
    extras_release(vm);
    guest_destroy(vm);
    vm->created = false;
    vm->destroyed = true;
    vm->state = VM_POWEROFF;
    write_stats(vm);
    return 0;
}

static long set_irqline(struct vm *vm, unsigned long value) {
    uint32_t gsi = (uint32_t)value, operation = (uint32_t)(value >> 32);

    if (gsi >= IOAPIC_PINS)
        return wrong(EPERM, "SET_IRQLINE: no such GSI");
    if (operation > 3)
        violation("SET_IRQLINE: operation %u does not exist", operation);
    set_line(vm, gsi, operation);
    return 0;
}

static long msi(struct vm *vm, unsigned long argument) {
    struct acrn_msi_entry args;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "INJECT_MSI: bad address");
    result = inject_msi(vm, args.msi_addr, args.msi_data);
    trace("INJECT_MSI", result, "\"addr\":%llu,\"data\":%llu", (unsigned long long)args.msi_addr,
          (unsigned long long)args.msi_data);
    return result;
}

static long memseg(struct vm *vm, unsigned long argument, bool set) {
    struct acrn_vm_memmap args;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "SET_MEMSEG: bad address");
    pthread_mutex_lock(&vm->lock);
    result = set ? set_memseg(vm, &args) : unset_memseg(vm, &args);
    pthread_mutex_unlock(&vm->lock);
    trace(set ? "SET_MEMSEG" : "UNSET_MEMSEG", result, "\"type\":%u,\"gpa\":%llu,\"len\":%llu,\"attr\":%u", args.type,
          (unsigned long long)args.user_vm_pa, (unsigned long long)args.len, args.attr);
    return result;
}

static long ioeventfd(struct vm *vm, unsigned long argument) {
    struct acrn_ioeventfd args;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "IOEVENTFD: bad address");
    if (args.reserved)
        result = wrong(EINVAL, "IOEVENTFD: the reserved field is not zero");
    else
        result = config_ioeventfd(vm, &args);
    trace("IOEVENTFD", result, "\"fd\":%d,\"flags\":%u,\"addr\":%llu,\"len\":%u,\"data\":%llu", (int)args.fd,
          args.flags, (unsigned long long)args.addr, args.len, (unsigned long long)args.data);
    return result;
}

static long irqfd(struct vm *vm, unsigned long argument) {
    struct acrn_irqfd args;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "IRQFD: bad address");
    result = config_irqfd(vm, &args);
    trace("IRQFD", result, "\"fd\":%d,\"flags\":%u,\"addr\":%llu,\"data\":%llu", args.fd, args.flags,
          (unsigned long long)args.msi.msi_addr, (unsigned long long)args.msi.msi_data);
    return result;
}

static long notify(struct vm *vm, unsigned long argument) {
    struct acrn_ioreq_notify args;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "NOTIFY_REQUEST_FINISH: bad address");
    result = ioreq_notify(vm, &args);
    trace("NOTIFY_REQUEST_FINISH", result, "\"vcpu\":%u", args.vcpu);
    return result;
}

/* Passthrough: the hypervisor has no device to give. */
static long passthrough(const char *call) {
    trace(call, -1, "");
    return set_failed(EPERM);
}

static long monitor(unsigned long address) {
    if (address % PAGE)
        violation("VM_INTR_MONITOR: the buffer is not page aligned");
    return page_is_writable(address) ? 0 : wrong(EFAULT, "VM_INTR_MONITOR: bad address");
}

#define PLAIN(name, call)                                                                                              \
    ({                                                                                                                 \
        long result_ = (call);                                                                                         \
        trace(name, result_, "");                                                                                      \
        result_;                                                                                                       \
    })

static const struct {
    unsigned long request;
    const char *name;
} NAMES[] = {
    {ACRN_IOCTL_CREATE_VM, "CREATE_VM"},
    {ACRN_IOCTL_DESTROY_VM, "DESTROY_VM"},
    {ACRN_IOCTL_START_VM, "START_VM"},
    {ACRN_IOCTL_PAUSE_VM, "PAUSE_VM"},
    {ACRN_IOCTL_RESET_VM, "RESET_VM"},
    {ACRN_IOCTL_SET_VCPU_REGS, "SET_VCPU_REGS"},
    {ACRN_IOCTL_INJECT_MSI, "INJECT_MSI"},
    {ACRN_IOCTL_VM_INTR_MONITOR, "VM_INTR_MONITOR"},
    {ACRN_IOCTL_SET_IRQLINE, "SET_IRQLINE"},
    {ACRN_IOCTL_NOTIFY_REQUEST_FINISH, "NOTIFY_REQUEST_FINISH"},
    {ACRN_IOCTL_CREATE_IOREQ_CLIENT, "CREATE_IOREQ_CLIENT"},
    {ACRN_IOCTL_ATTACH_IOREQ_CLIENT, "ATTACH_IOREQ_CLIENT"},
    {ACRN_IOCTL_DESTROY_IOREQ_CLIENT, "DESTROY_IOREQ_CLIENT"},
    {ACRN_IOCTL_CLEAR_VM_IOREQ, "CLEAR_VM_IOREQ"},
    {ACRN_IOCTL_SET_MEMSEG, "SET_MEMSEG"},
    {ACRN_IOCTL_UNSET_MEMSEG, "UNSET_MEMSEG"},
    {ACRN_IOCTL_SET_PTDEV_INTR, "SET_PTDEV_INTR"},
    {ACRN_IOCTL_RESET_PTDEV_INTR, "RESET_PTDEV_INTR"},
    {ACRN_IOCTL_ASSIGN_PCIDEV, "ASSIGN_PCIDEV"},
    {ACRN_IOCTL_DEASSIGN_PCIDEV, "DEASSIGN_PCIDEV"},
    {ACRN_IOCTL_ASSIGN_MMIODEV, "ASSIGN_MMIODEV"},
    {ACRN_IOCTL_DEASSIGN_MMIODEV, "DEASSIGN_MMIODEV"},
    {ACRN_IOCTL_CREATE_VDEV, "CREATE_VDEV"},
    {ACRN_IOCTL_DESTROY_VDEV, "DESTROY_VDEV"},
    {ACRN_IOCTL_PM_GET_CPU_STATE, "PM_GET_CPU_STATE"},
    {ACRN_IOCTL_IOEVENTFD, "IOEVENTFD"},
    {ACRN_IOCTL_IRQFD, "IRQFD"},
    {RIG_IOCTL_SETUP_ASYNCIO, "SETUP_ASYNCIO"},
    {RIG_IOCTL_SETUP_VM_EVENT_RING, "SETUP_VM_EVENT_RING"},
    {RIG_IOCTL_SETUP_VM_EVENT_FD, "SETUP_VM_EVENT_FD"},
};

static const char *name_of(unsigned long request) {
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(*NAMES); i++)
        if (NAMES[i].request == request)
            return NAMES[i].name;
    return NULL;
}

static long call_vm(struct vm *vm, unsigned long request, unsigned long argument, const char *name) {
    switch (request) {
    case ACRN_IOCTL_DESTROY_VM:
        return PLAIN(name, destroy_vm(vm));
    case ACRN_IOCTL_START_VM:
        return PLAIN(name, start_vm(vm));
    case ACRN_IOCTL_PAUSE_VM:
        return PLAIN(name, pause_vm(vm));
    case ACRN_IOCTL_RESET_VM:
        return PLAIN(name, reset_vm(vm));
    case ACRN_IOCTL_SET_VCPU_REGS:
        return set_vcpu_regs(vm, argument);
    case ACRN_IOCTL_SET_MEMSEG:
        return memseg(vm, argument, true);
    case ACRN_IOCTL_UNSET_MEMSEG:
        return memseg(vm, argument, false);
    case ACRN_IOCTL_PM_GET_CPU_STATE:
        return get_cpu_state(vm, argument);
    case RIG_IOCTL_SETUP_ASYNCIO:
        return PLAIN(name, setup_asyncio(vm, argument));
    case RIG_IOCTL_SETUP_VM_EVENT_RING:
        return PLAIN(name, setup_event_ring(vm, argument));
    case RIG_IOCTL_SETUP_VM_EVENT_FD:
        return PLAIN(name, setup_event_fd(vm, (int)argument));
    default:
        return passthrough(name);
    }
}

static long call_running(struct vm *vm, unsigned long request, unsigned long argument, const char *name) {
    long result;

    switch (request) {
    case ACRN_IOCTL_INJECT_MSI:
        return msi(vm, argument);
    case ACRN_IOCTL_VM_INTR_MONITOR:
        return PLAIN(name, monitor(argument));
    case ACRN_IOCTL_SET_IRQLINE:
        result = set_irqline(vm, argument);
        trace(name, result, "\"gsi\":%u,\"operation\":%u", (uint32_t)argument, (uint32_t)(argument >> 32));
        return result;
    case ACRN_IOCTL_NOTIFY_REQUEST_FINISH:
        return notify(vm, argument);
    case ACRN_IOCTL_CREATE_IOREQ_CLIENT:
        return PLAIN(name, ioreq_client_create(vm));
    case ACRN_IOCTL_ATTACH_IOREQ_CLIENT:
        return PLAIN(name, ioreq_attach(vm));
    case ACRN_IOCTL_DESTROY_IOREQ_CLIENT:
        return PLAIN(name, ioreq_client_destroy(vm));
    case ACRN_IOCTL_CLEAR_VM_IOREQ:
        return PLAIN(name, (ioreq_clear(vm), 0l));
    case ACRN_IOCTL_IOEVENTFD:
        return ioeventfd(vm, argument);
    case ACRN_IOCTL_IRQFD:
        return irqfd(vm, argument);
    default:
        return call_vm(vm, request, argument, name);
    }
}

long hsm_ioctl(struct vm *vm, unsigned long request, unsigned long argument) {
    return vm->vhm ? vhm_ioctl(vm, request, argument) : module_call(vm, request, argument);
}

long module_call(struct vm *vm, unsigned long request, unsigned long argument) {
    const char *name = name_of(request & 0xffffffff);
    int error;

    if (name == NULL) {
        violation("ioctl %#lx does not exist", request);
        return set_failed(ENOTTY);
    }
    error = injected_failure(name);
    if (error) {
        vm->client_stayed |= request == ACRN_IOCTL_DESTROY_IOREQ_CLIENT;
        set_failed(error);
        trace(name, -1, "");
        return -1;
    }
    if (request == ACRN_IOCTL_CREATE_VM)
        return create_vm(vm, argument);
    if (!vm->created) {
        /* Nothing but the client's end tells its thread to stay away, so it may be late where there was none. */
        if (!vm->client_stayed || request != ACRN_IOCTL_ATTACH_IOREQ_CLIENT)
            violation("%s without a VM", name);
        return PLAIN(name, set_failed(EINVAL));
    }
    return call_running(vm, request, argument, name);
}

void hsm_close(struct vm *vm) {
    if (vm->created && vm->state != VM_PAUSED)
        violation("close of a VM that is %s: the hypervisor keeps it", STATES[vm->state]);
    if (vm->created) {
        pause_vm(vm);
        destroy_vm(vm);
    }
    trace("close", 0, "");
    /* The rest stays: another thread may still be leaving a call. */
}
