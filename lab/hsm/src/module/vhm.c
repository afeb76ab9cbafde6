/*
 * The interface of 2018, /dev/acrn_vhm: today's module behind other numbers and structures.
 *
 * Numbers say nothing of size and direction, and one that does not exist gives 0. The interface has a version; a VM has
 * a UUID, and gets its vCPUs one by one; a client has a number, which its slots carry where kernel_handled is now
 * (tag v1.0 of acrn-hypervisor: devicemodel/include/public/vhm_ioctl_defs.h, hypervisor/include/public/acrn_common.h).
 */
#include "rig.h"

#include <errno.h>

#define BASE (0x43ul << 24)
#define GET_API_VERSION 0x00
#define CREATE_VCPU 0x14
#define ATTACH_RETURNS_WHEN_DESTROYED 1

struct api_version {
    uint32_t major, minor;
};

struct create_vcpu {
    uint16_t vcpu, pcpu;
    uint32_t padding;
};

struct vm_memmap {
    uint32_t type, using_vma;
    uint64_t gpa, address, length;
    uint32_t rights, padding;
};

struct set_vcpu_regs {
    struct acrn_vcpu_regs today;
    uint64_t reserved;
};

struct ioreq_notify {
    int32_t client;
    uint32_t vcpu;
};

_Static_assert(sizeof(struct vm_memmap) == 40, "vm_memmap");
_Static_assert(sizeof(struct set_vcpu_regs) == 304, "acrn_set_vcpu_regs");

static const struct {
    unsigned number;
    unsigned long today;
} CALLS[] = {
    {0x10, ACRN_IOCTL_CREATE_VM},
    {0x11, ACRN_IOCTL_DESTROY_VM},
    {0x12, ACRN_IOCTL_START_VM},
    {0x13, ACRN_IOCTL_PAUSE_VM},
    {0x15, ACRN_IOCTL_RESET_VM},
    {0x16, ACRN_IOCTL_SET_VCPU_REGS},
    {0x23, ACRN_IOCTL_INJECT_MSI},
    {0x24, ACRN_IOCTL_VM_INTR_MONITOR},
    {0x25, ACRN_IOCTL_SET_IRQLINE},
    {0x31, ACRN_IOCTL_NOTIFY_REQUEST_FINISH},
    {0x32, ACRN_IOCTL_CREATE_IOREQ_CLIENT},
    {0x33, ACRN_IOCTL_ATTACH_IOREQ_CLIENT},
    {0x34, ACRN_IOCTL_DESTROY_IOREQ_CLIENT},
    {0x35, ACRN_IOCTL_CLEAR_VM_IOREQ},
    {0x41, ACRN_IOCTL_SET_MEMSEG},
    {0x60, ACRN_IOCTL_PM_GET_CPU_STATE},
    {0x70, ACRN_IOCTL_IOEVENTFD},
    {0x71, ACRN_IOCTL_IRQFD},
};

static unsigned long todays(unsigned long request) {
    for (size_t i = 0; i < sizeof(CALLS) / sizeof(*CALLS); i++)
        if (request == (BASE | CALLS[i].number))
            return CALLS[i].today;
    return 0;
}

static long api_version(unsigned long argument) {
    const struct api_version version = {1, 0};
    int error = injected_failure("GET_API_VERSION");
    long result = 0;

    if (error)
        result = set_failed(error);
    else if (!copy_out(argument, &version, sizeof(version)))
        result = wrong(EFAULT, "GET_API_VERSION: bad address");
    trace("GET_API_VERSION", result, "");
    return result;
}

static long create_vcpu(struct vm *vm, unsigned long argument) {
    int error = injected_failure("CREATE_VCPU");
    struct create_vcpu args = {0};
    long result = 0;

    if (error)
        result = set_failed(error);
    else if (!copy_in(&args, argument, sizeof(args)))
        result = wrong(EFAULT, "CREATE_VCPU: bad address");
    else if (!vm->created || vm->state != VM_CREATED || vm->vm_fd >= 0)
        result = wrong(EINVAL, "CREATE_VCPU: only of a VM that was just created");
    else if (args.vcpu != vm->vcpu_num || args.vcpu >= ACRN_IO_REQUEST_MAX)
        result = wrong(EINVAL, "CREATE_VCPU: vCPUs come in order");
    else
        add_vcpu(vm, args.vcpu);
    trace("CREATE_VCPU", result, "\"vcpu\":%u", args.vcpu);
    return result;
}

static long set_memory(struct vm *vm, unsigned long argument) {
    struct acrn_vm_memmap today;
    struct vm_memmap args;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "SET_MEMSEG: bad address");
    if (args.type != 0 || args.using_vma != 1)
        return wrong(EINVAL, "SET_MEMSEG: only RAM by its address in the process is emulated");
    today = (struct acrn_vm_memmap){.type = ACRN_MEMMAP_RAM, .attr = args.rights};
    today.user_vm_pa = args.gpa;
    today.vma_base = args.address;
    today.len = args.length;
    return module_call(vm, ACRN_IOCTL_SET_MEMSEG, (unsigned long)&today);
}

static long set_regs(struct vm *vm, unsigned long argument) {
    struct set_vcpu_regs args;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "SET_VCPU_REGS: bad address");
    if (args.reserved)
        return wrong(EINVAL, "SET_VCPU_REGS: the last reserved field is not zero");
    return module_call(vm, ACRN_IOCTL_SET_VCPU_REGS, (unsigned long)&args.today);
}

static bool is_client(const struct vm *vm, const char *call, int64_t client) {
    if (client == vm->owner)
        return true;
    violation("%s: client %lld, this is %u", call, (long long)client, vm->owner);
    return false;
}

static long notify(struct vm *vm, unsigned long argument) {
    struct acrn_ioreq_notify today = {.vmid = vm->vmid};
    struct ioreq_notify args;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "NOTIFY_REQUEST_FINISH: bad address");
    if (!is_client(vm, "NOTIFY_REQUEST_FINISH", args.client))
        return set_failed(EINVAL);
    today.vcpu = args.vcpu;
    return module_call(vm, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, (unsigned long)&today);
}

static long create_client(struct vm *vm) {
    long result = module_call(vm, ACRN_IOCTL_CREATE_IOREQ_CLIENT, 0);

    return result < 0 ? result : (long)vm->owner;
}

static long attach(struct vm *vm, unsigned long argument) {
    long result;

    if (!is_client(vm, "ATTACH_IOREQ_CLIENT", (int64_t)argument))
        return set_failed(EINVAL);
    result = module_call(vm, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0);
    return result < 0 && errno == ENODEV ? ATTACH_RETURNS_WHEN_DESTROYED : result;
}

static long destroy_client(struct vm *vm, unsigned long argument) {
    if (!is_client(vm, "DESTROY_IOREQ_CLIENT", (int64_t)argument))
        return set_failed(EINVAL);
    return module_call(vm, ACRN_IOCTL_DESTROY_IOREQ_CLIENT, 0);
}

long vhm_ioctl(struct vm *vm, unsigned long request, unsigned long argument) {
    unsigned long today = todays(request);

    if (request == (BASE | GET_API_VERSION))
        return api_version(argument);
    if (request == (BASE | CREATE_VCPU))
        return create_vcpu(vm, argument);
    switch (today) {
    case 0:
        violation("ioctl %#lx does not exist in 2018", request);
        return 0;
    case ACRN_IOCTL_SET_MEMSEG:
        return set_memory(vm, argument);
    case ACRN_IOCTL_SET_VCPU_REGS:
        return set_regs(vm, argument);
    case ACRN_IOCTL_NOTIFY_REQUEST_FINISH:
        return notify(vm, argument);
    case ACRN_IOCTL_CREATE_IOREQ_CLIENT:
        return create_client(vm);
    case ACRN_IOCTL_ATTACH_IOREQ_CLIENT:
        return attach(vm, argument);
    case ACRN_IOCTL_DESTROY_IOREQ_CLIENT:
        return destroy_client(vm, argument);
    default:
        return module_call(vm, today, argument);
    }
}
