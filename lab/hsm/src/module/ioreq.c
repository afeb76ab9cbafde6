/*
 * The request page and its protocol (kernel: drivers/virt/acrn/ioreq.c; linux/acrn.h, struct acrn_io_request).
 *
 * FREE -> PENDING by the hypervisor, PROCESSING by the module, COMPLETE by the module when the client has notified, FREE
 * by the hypervisor. The client reads the slot, writes the value and nothing else.
 */
#include "rig.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CF8 0xcf8
#define CFC 0xcfc
#define CF8_ENABLE 0x80000000u

static struct acrn_io_request *slot_of(struct vcpu *vcpu) {
    return &vcpu->vm->page->req_slot[vcpu->id];
}

static void set_state(struct vcpu *vcpu, uint32_t state) {
    __atomic_store_n(&slot_of(vcpu)->processed, state, __ATOMIC_RELEASE);
}

/* With ioreq_lock held. */
static void wake_client(struct vm *vm) {
    __atomic_add_fetch(&vm->wake, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &vm->wake, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* As the hypervisor: everything of the request at once, the rest of the slot stays. */
static void fill(struct vcpu *vcpu, const struct access *access) {
    struct acrn_io_request *slot = slot_of(vcpu);

    if (__atomic_load_n(&slot->processed, __ATOMIC_ACQUIRE) != ACRN_IOREQ_STATE_FREE)
        violation("slot %d is not FREE when its vCPU posts: who wrote it?", vcpu->id);
    slot->type = access->type;
    slot->completion_polling = vcpu->vm->flags >> 2 & 1;
    memset(&slot->reqs, 0, sizeof(slot->reqs));
    slot->reqs.mmio_request.direction = access->write ? ACRN_IOREQ_DIR_WRITE : ACRN_IOREQ_DIR_READ;
    slot->reqs.mmio_request.address = access->address;
    slot->reqs.mmio_request.size = access->size;
    if (access->type == ACRN_IOREQ_TYPE_PORTIO)
        slot->reqs.pio_request.value = access->write ? (uint32_t)access->value : 0;
    else
        slot->reqs.mmio_request.value = access->write ? access->value : 0;
    set_state(vcpu, ACRN_IOREQ_STATE_PENDING);
}

/* Configuration mechanism 1: the module keeps the address and turns the data port into a request of its own kind. */
static bool handle_cf8_cfc(struct vm *vm, struct acrn_io_request *slot) {
    struct acrn_pio_request *pio = &slot->reqs.pio_request;
    uint32_t address = vm->conf_addr;
    uint32_t offset;

    if (slot->type != ACRN_IOREQ_TYPE_PORTIO)
        return false;
    if (pio->address == CF8) {
        vm->count.cf8++;
        if (pio->direction == ACRN_IOREQ_DIR_WRITE)
            vm->conf_addr = pio->value;
        else
            pio->value = vm->conf_addr;
        return true;
    }
    if (pio->address < CFC || pio->address > CFC + 3)
        return false;
    if (!(address & CF8_ENABLE)) {
        if (pio->direction == ACRN_IOREQ_DIR_READ)
            pio->value = 0xffffffff;
        return true;
    }
    offset = (uint32_t)pio->address - CFC;
    slot->type = ACRN_IOREQ_TYPE_PCICFG;
    slot->reqs.pci_request.bus = address >> 16 & 0xff;
    slot->reqs.pci_request.dev = address >> 11 & 0x1f;
    slot->reqs.pci_request.func = address >> 8 & 7;
    slot->reqs.pci_request.reg = (address & 0xfc) + (address >> 16 & 0xf00) + offset;
    return false;
}

static void count(struct vm *vm, uint32_t type) {
    vm->count.pio += type == ACRN_IOREQ_TYPE_PORTIO;
    vm->count.mmio += type == ACRN_IOREQ_TYPE_MMIO;
    vm->count.pcicfg += type == ACRN_IOREQ_TYPE_PCICFG;
    vm->count.wp += type > ACRN_IOREQ_TYPE_PCICFG;
}

static uint32_t written(const struct acrn_io_request *slot) {
    if (slot->type == ACRN_IOREQ_TYPE_PORTIO)
        return slot->reqs.pio_request.value;
    return slot->type == ACRN_IOREQ_TYPE_PCICFG ? (uint32_t)slot->reqs.pci_request.value
                                                : (uint32_t)slot->reqs.mmio_request.value;
}

static void trace_request(const struct vcpu *vcpu, const struct acrn_io_request *slot) {
    static const char *const KINDS[] = {"pio", "mmio", "config", "wp"};
    const struct acrn_mmio_request *mmio = &slot->reqs.mmio_request;
    const struct acrn_pci_request *pci = &slot->reqs.pci_request;
    uint64_t address = mmio->address;

    if (!number_setting("RIG_REQUESTS", 0))
        return;
    if (slot->type == ACRN_IOREQ_TYPE_PCICFG)
        address = (uint64_t)(pci->bus << 20 | pci->dev << 15 | pci->func << 12 | pci->reg);
    trace("REQUEST", 0, "\"vcpu\":%d,\"kind\":\"%s\",\"write\":%u,\"address\":%llu,\"size\":%llu,\"value\":%u",
          vcpu->id, KINDS[slot->type & 3], mmio->direction, (unsigned long long)address,
          (unsigned long long)mmio->size, mmio->direction ? written(slot) : 0);
}

/* The module's part; true when it answered by itself. With ioreq_lock held. */
static bool dispatch(struct vcpu *vcpu, struct access *access) {
    struct acrn_io_request *slot = slot_of(vcpu);
    struct vm *vm = vcpu->vm;

    if (handle_cf8_cfc(vm, slot))
        return true;
    if (slot->type != ACRN_IOREQ_TYPE_PCICFG && ioeventfd_claims(vm, access)) {
        slot->kernel_handled = 1;
        set_state(vcpu, ACRN_IOREQ_STATE_PROCESSING);
        wake_client(vm); /* its thread may look at the slots just now, and has to leave this one alone */
        ioeventfd_handle(vm, access);
        slot->reqs.mmio_request.value = access->value;
        vm->count.kernel_handled++;
        return true;
    }
    count(vm, slot->type);
    trace_request(vcpu, slot);
    slot->kernel_handled = vm->owner;
    vcpu->waiting = true;
    vcpu->posted_ns = now_ns();
    if (!vm->client) {
        violation("a request of vCPU %d has no client", vcpu->id);
        return false;
    }
    vcpu->sent = *slot;
    set_state(vcpu, ACRN_IOREQ_STATE_PROCESSING);
    vm->pending |= 1u << vcpu->id;
    wake_client(vm);
    return false;
}

static void sample(struct vcpu *vcpu) {
    struct vm *vm = vcpu->vm;
    uint64_t ns = now_ns() - vcpu->posted_ns;

    if (vm->samples == vm->samples_room) {
        vm->samples_room = vm->samples_room ? 2 * vm->samples_room : 4096;
        vm->samples_ns = realloc(vm->samples_ns, vm->samples_room * sizeof(*vm->samples_ns));
    }
    vm->samples_ns[vm->samples++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

/* The client may have changed the value only. */
static void check_answer(struct vcpu *vcpu) {
    const struct acrn_io_request *now = slot_of(vcpu), *sent = &vcpu->sent;
    struct acrn_io_request masked = *now;

    if (now->processed != ACRN_IOREQ_STATE_PROCESSING)
        violation("slot %d: the client wrote state %u; the module does that", vcpu->id, now->processed);
    masked.processed = sent->processed;
    if (sent->type == ACRN_IOREQ_TYPE_MMIO || sent->type > ACRN_IOREQ_TYPE_PCICFG)
        masked.reqs.mmio_request.value = sent->reqs.mmio_request.value;
    else
        masked.reqs.pio_request.value = sent->reqs.pio_request.value;
    if (memcmp(&masked, sent, offsetof(struct acrn_io_request, processed)) != 0)
        violation("slot %d: the client changed more than the value", vcpu->id);
}

/* With ioreq_lock held. */
static void complete(struct vcpu *vcpu) {
    vcpu->waiting = false;
    vcpu->vm->pending &= ~(1u << vcpu->id);
    set_state(vcpu, ACRN_IOREQ_STATE_COMPLETE);
    pthread_cond_signal(&vcpu->answered);
}

/*
 * One access of a vCPU, from its thread: posted, answered, the value in access->value. False when the VM was stopped
 * meanwhile: the vCPU does not go on.
 */
bool ioreq_post(struct vcpu *vcpu, struct access *access) {
    struct acrn_io_request *slot = slot_of(vcpu);
    struct vm *vm = vcpu->vm;
    bool goes_on;

    if (access->write && ioeventfd_async(vm, access))
        return true;
    if (!enter_guest(vcpu))
        return false; /* paused between two accesses of one instruction */
    pthread_mutex_lock(&vm->ioreq_lock);
    fill(vcpu, access);
    if (dispatch(vcpu, access))
        set_state(vcpu, ACRN_IOREQ_STATE_COMPLETE);
    leave_guest(vcpu); /* PAUSE_VM does not wait for an answer */
    while (vcpu->waiting && !vm->aborted)
        pthread_cond_wait(&vcpu->answered, &vm->ioreq_lock);
    goes_on = !vm->aborted;
    access->value = slot->type == ACRN_IOREQ_TYPE_MMIO ? slot->reqs.mmio_request.value : slot->reqs.pio_request.value;
    if (access->size < 8)
        access->value &= (1ull << (8 * access->size)) - 1;
    vcpu->waiting = false;
    set_state(vcpu, ACRN_IOREQ_STATE_FREE);
    pthread_mutex_unlock(&vm->ioreq_lock);
    return goes_on;
}

long ioreq_client_create(struct vm *vm) {
    long result = 0;

    pthread_mutex_lock(&vm->ioreq_lock);
    if (vm->client) {
        violation("CREATE_IOREQ_CLIENT twice");
        result = set_failed(EEXIST);
    }
    vm->client = true;
    pthread_mutex_unlock(&vm->ioreq_lock);
    return result;
}

long ioreq_client_destroy(struct vm *vm) {
    pthread_mutex_lock(&vm->ioreq_lock);
    vm->client = false;
    vm->client_generation++;
    vm->pending = 0;
    wake_client(vm);
    pthread_mutex_unlock(&vm->ioreq_lock);
    return 0;
}

static bool is_spurious(struct vm *vm) {
    long every = number_setting("RIG_SPURIOUS", 0);

    if (every <= 0 || vm->count.attach % (uint64_t)every != 0)
        return false;
    vm->count.spurious++;
    return true;
}

/* Returns 0 with a request to look at, or because of a signal. ENODEV once the client is gone. */
long ioreq_attach(struct vm *vm) {
    uint32_t generation, seen;
    long result = 0;

    pthread_mutex_lock(&vm->ioreq_lock);
    vm->count.attach++;
    generation = vm->client_generation;
    if (vm->client && is_spurious(vm)) {
        pthread_mutex_unlock(&vm->ioreq_lock);
        return 0;
    }
    while (vm->client && vm->client_generation == generation && !vm->pending) {
        seen = __atomic_load_n(&vm->wake, __ATOMIC_ACQUIRE);
        pthread_mutex_unlock(&vm->ioreq_lock);
        if (syscall(SYS_futex, &vm->wake, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0) < 0 && errno == EINTR)
            return 0; /* wait_event_interruptible's result is not looked at */
        pthread_mutex_lock(&vm->ioreq_lock);
    }
    if (!vm->client || vm->client_generation != generation)
        result = set_failed(ENODEV);
    pthread_mutex_unlock(&vm->ioreq_lock);
    return result;
}

long ioreq_notify(struct vm *vm, const struct acrn_ioreq_notify *args) {
    struct vcpu *vcpu;

    if (args->reserved) {
        violation("NOTIFY_REQUEST_FINISH: the reserved field is not zero");
        return set_failed(EINVAL);
    }
    if (args->vmid != vm->vmid)
        violation("NOTIFY_REQUEST_FINISH: VM %u, this is %u", args->vmid, vm->vmid);
    pthread_mutex_lock(&vm->ioreq_lock);
    if (!vm->client) { /* a last answer may cross the client's end */
        pthread_mutex_unlock(&vm->ioreq_lock);
        return 0;
    }
    if (args->vcpu >= vm->vcpu_num) {
        pthread_mutex_unlock(&vm->ioreq_lock);
        violation("NOTIFY_REQUEST_FINISH: no vCPU %u", args->vcpu);
        return set_failed(EINVAL);
    }
    vcpu = &vm->vcpus[args->vcpu];
    vm->count.notify++;
    if (!(vm->pending & 1u << args->vcpu)) {
        violation("NOTIFY_REQUEST_FINISH: vCPU %u has no request: notified twice?", args->vcpu);
    } else {
        check_answer(vcpu);
        sample(vcpu);
        complete(vcpu);
    }
    pthread_mutex_unlock(&vm->ioreq_lock);
    return 0;
}

/* The module waits up to 100 ms for its own clients, which here never hold a request; then it answers for the default one. */
void ioreq_clear(struct vm *vm) {
    pthread_mutex_lock(&vm->ioreq_lock);
    for (int i = 0; i < vm->vcpu_num; i++)
        if (vm->pending & 1u << i)
            complete(&vm->vcpus[i]);
    pthread_mutex_unlock(&vm->ioreq_lock);
}

/* Let go the vCPU threads whose requests nobody answers any more. */
void ioreq_abort(struct vm *vm) {
    pthread_mutex_lock(&vm->ioreq_lock);
    vm->aborted = true;
    vm->pending = 0;
    for (int i = 0; i < vm->vcpu_num; i++)
        pthread_cond_signal(&vm->vcpus[i].answered);
    pthread_mutex_unlock(&vm->ioreq_lock);
}

bool ioreq_outstanding(struct vm *vm) {
    bool any = false;

    pthread_mutex_lock(&vm->ioreq_lock);
    for (int i = 0; i < vm->vcpu_num; i++)
        any |= vm->vcpus[i].waiting;
    pthread_mutex_unlock(&vm->ioreq_lock);
    return any;
}
