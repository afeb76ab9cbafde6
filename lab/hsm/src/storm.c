/*
 * No guest, many requests: every vCPU writes and reads registers of a device that the client emulates, and checks each
 * answer. The device: what was written last to an address, exclusive-or'ed with a constant, is what it reads as.
 */
#include "rig.h"

#define KEY 0x5a5a5a5a5a5a5a5aull
#define KICK_ADDRESS 0xd8000000ull /* of an ioeventfd, if the client bound one */
#define DONE_PORT 0x5f0

static bool post(struct vcpu *vcpu, uint32_t type, bool write, uint64_t address, uint32_t size, uint64_t *value) {
    struct access access = {.type = type, .write = write, .address = address, .size = size, .value = *value};
    bool goes_on = ioreq_post(vcpu, &access);

    *value = access.value;
    return goes_on;
}

static uint64_t cut(uint64_t value, uint32_t size) {
    return size == 8 ? value : value & ((1ull << (8 * size)) - 1);
}

/* Write, read back, compare. */
static bool round_trip(struct vcpu *vcpu, uint32_t type, uint64_t address, uint32_t size, uint64_t value) {
    uint64_t out = cut(value, size), in = 0;

    if (!post(vcpu, type, true, address, size, &out) || !post(vcpu, type, false, address, size, &in))
        return false;
    if (in != cut(value ^ KEY, size))
        violation("storm: vCPU %d wrote %#llx at %#llx and read %#llx", vcpu->id, (unsigned long long)value,
                  (unsigned long long)address, (unsigned long long)in);
    return true;
}

/* Two requests to the client: one access each of the three kinds in turn. */
static bool turn(struct vcpu *vcpu, uint64_t n) {
    static pthread_mutex_t configuration = PTHREAD_MUTEX_INITIALIZER; /* address and data port belong together */
    const uint64_t id = (uint64_t)vcpu->id;
    uint64_t value = n, address = 0x80000000u | (id + 1) << 11 | 0x40;
    bool goes_on;

    switch (n % 4) {
    case 0:
        return round_trip(vcpu, ACRN_IOREQ_TYPE_PORTIO, 0x5000 + 16 * id, 1u << n / 4 % 3, n * 0x01010101);
    case 1:
        return round_trip(vcpu, ACRN_IOREQ_TYPE_MMIO, 0xd0000000ull + 4096 * id, 1u << n / 4 % 4, n * KEY);
    case 2:
        pthread_mutex_lock(&configuration);
        goes_on = post(vcpu, ACRN_IOREQ_TYPE_PORTIO, true, 0xcf8, 4, &address) &&
                  round_trip(vcpu, ACRN_IOREQ_TYPE_PORTIO, 0xcfc, 4, n * 0x10001);
        pthread_mutex_unlock(&configuration);
        return goes_on;
    default:
        return post(vcpu, ACRN_IOREQ_TYPE_MMIO, true, KICK_ADDRESS, 4, &value) &&
               round_trip(vcpu, ACRN_IOREQ_TYPE_MMIO, 0xd1000000ull + 4096 * id, 4, n);
    }
}

void *storm_main(void *argument) {
    struct vcpu *vcpu = argument;
    const uint64_t turns = (uint64_t)number_setting("RIG_STORM", 0) / vcpu->vm->vcpu_num / 2;
    uint64_t id = (uint64_t)vcpu->id, n = 0;

    while (n < turns && vcpu->vm->state == VM_RUNNING && turn(vcpu, n))
        n++;
    if (n == turns)
        post(vcpu, ACRN_IOREQ_TYPE_PORTIO, true, DONE_PORT, 4, &id);
    return NULL;
}
