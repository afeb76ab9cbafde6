/* CREATE_VM: what is checked of it, the request page, and how many vCPUs there are. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FLAG_LAPIC_PASSTHROUGH (1ull << 1)
#define FLAG_RT (1ull << 4)
#define FLAG_RT_2018 (1ull << 5)
#define NAME_LEN 16
#define VMID 1

static bool name_is_padded(const uint8_t *name) {
    size_t length = strnlen((const char *)name, NAME_LEN);

    if (length == 0 || length == NAME_LEN)
        return false;
    for (size_t i = length; i < NAME_LEN; i++)
        if (name[i] != 0)
            return false;
    return true;
}

static bool is_uuid(const uint8_t *identity) {
    uint8_t any = 0;

    for (size_t i = 0; i < NAME_LEN; i++)
        any |= identity[i];
    return any != 0;
}

static bool pin_request_page(struct vm *vm, uint64_t address) {
    vm->page = pin_page(address);
    if (vm->page == NULL)
        return false;
    for (int i = 0; i < ACRN_IO_REQUEST_MAX; i++)
        __atomic_store_n(&vm->page->req_slot[i].processed, ACRN_IOREQ_STATE_FREE, __ATOMIC_RELEASE);
    return true;
}

/* Its LAPIC id. */
void add_vcpu(struct vm *vm, uint32_t apic_id) {
    struct vcpu *vcpu = &vm->vcpus[vm->vcpu_num];

    vcpu->vm = vm;
    vcpu->id = vm->vcpu_num++;
    vcpu->apic_id = apic_id;
    vcpu->fd = -1;
    pthread_cond_init(&vcpu->answered, NULL);
}

static void add_vcpus(struct vm *vm, uint64_t affinity) {
    vm->vcpu_num = 0;
    if (vm->vhm)
        return; /* CREATE_VCPU does */
    for (uint32_t cpu = 0; cpu < 64 && vm->vcpu_num < ACRN_IO_REQUEST_MAX; cpu++)
        if (affinity >> cpu & 1)
            add_vcpu(vm, cpu);
    if (vm->vcpu_num == 0)
        while (vm->vcpu_num < number_setting("RIG_VCPUS", 1) && vm->vcpu_num < ACRN_IO_REQUEST_MAX)
            add_vcpu(vm, vm->vcpu_num);
}

static long create_checked(struct vm *vm, struct acrn_vm_creation *args) {
    const uint64_t rt = vm->vhm ? FLAG_RT_2018 : FLAG_RT;
    long pcpus = vm->vhm ? 0 : number_setting("RIG_PCPUS", 8); /* in 2018 that field was reserved */

    if (vm->created)
        return wrong(EINVAL, "CREATE_VM twice on one descriptor");
    if (vm->destroyed)
        violation("CREATE_VM after DESTROY_VM on one descriptor: the module never destroys that VM");
    if (args->reserved0 || args->reserved1)
        return wrong(EINVAL, "CREATE_VM: a reserved field is not zero");
    if (vm->vhm && !is_uuid((const uint8_t *)&args->uuid))
        return wrong(EINVAL, "CREATE_VM: there is no UUID");
    if (!vm->vhm && !name_is_padded((const uint8_t *)&args->uuid))
        return wrong(EINVAL, "CREATE_VM: the name is not 1 to 15 bytes padded with zeros");
    if (args->cpu_affinity >> pcpus)
        return set_failed(EINVAL); /* the user chose processors that are not there */
    if ((args->vm_flag & FLAG_LAPIC_PASSTHROUGH) && !(args->vm_flag & rt))
        return wrong(EINVAL, "CREATE_VM: LAPIC passthrough without RT");
    if (args->ioreq_buf % PAGE)
        violation("CREATE_VM: the request page is not aligned: the module ignores the offset");
    if (!pin_request_page(vm, args->ioreq_buf))
        return wrong(EINVAL, "CREATE_VM: the request page is not writable memory");
    vm->flags = args->vm_flag;
    add_vcpus(vm, args->cpu_affinity);
    if (guest_create(vm) < 0)
        return -1;
    args->vmid = vm->vmid = VMID;
    args->vcpu_num = vm->vcpu_num;
    vm->created = true;
    vm->state = VM_CREATED;
    return 0;
}

/* For the trace, which is text: a name as it is, a UUID in hexadecimal. */
static void write_identity(const struct vm *vm, char to[2 * NAME_LEN + 1], const uint8_t *identity) {
    if (!vm->vhm)
        snprintf(to, 2 * NAME_LEN + 1, "%.16s", (const char *)identity);
    for (size_t i = 0; vm->vhm && i < NAME_LEN; i++)
        snprintf(to + 2 * i, 3, "%02x", identity[i]);
}

long create_vm(struct vm *vm, unsigned long argument) {
    char identity[2 * NAME_LEN + 1];
    struct acrn_vm_creation args;
    long result;

    if (!copy_in(&args, argument, sizeof(args)))
        return wrong(EFAULT, "CREATE_VM: bad address");
    result = create_checked(vm, &args);
    if (result == 0 && !copy_out(argument, &args, sizeof(args)))
        result = wrong(EFAULT, "CREATE_VM: bad address");
    write_identity(vm, identity, (const uint8_t *)&args.uuid);
    trace("CREATE_VM", result, "\"%s\":\"%s\",\"flags\":%llu,\"affinity\":%llu,\"vcpu_num\":%u",
          vm->vhm ? "uuid" : "name", identity, (unsigned long long)args.vm_flag,
          (unsigned long long)args.cpu_affinity, args.vcpu_num);
    return result;
}
