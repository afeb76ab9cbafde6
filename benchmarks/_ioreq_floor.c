/*
 * The least a client of the HSM can do: wait, answer, notify. Registers read as what was written last, exclusive-or'ed
 * with a constant, which is what the rig's vCPUs (RIG_STORM) check. Run with the rig preloaded: FLOOR VCPUS.
 */
#include <fcntl.h>
#include <linux/acrn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define KEY 0x5a5a5a5a5a5a5a5aull
#define DONE_PORT 0x5f0
#define PLACES 4096

static struct {
    uint64_t place, value;
} registers[PLACES];

/* Open addressing: the storm uses a few dozen registers. */
static uint64_t *find(uint64_t place) {
    uint64_t i = place * 0x9e3779b97f4a7c15ull >> 52;

    while (registers[i].place != 0 && registers[i].place != place)
        i = (i + 1) % PLACES;
    registers[i].place = place;
    return &registers[i].value;
}

static uint64_t place_of(const struct acrn_io_request *slot) {
    const struct acrn_pci_request *pci = &slot->reqs.pci_request;

    if (slot->type == ACRN_IOREQ_TYPE_PCICFG)
        return 1ull << 62 | pci->bus << 24 | pci->dev << 19 | pci->func << 16 | pci->reg;
    return (uint64_t)(slot->type + 1) << 60 | slot->reqs.mmio_request.address;
}

static int answer(struct acrn_io_request *slot) {
    struct acrn_pio_request *pio = &slot->reqs.pio_request;
    struct acrn_mmio_request *mmio = &slot->reqs.mmio_request;
    uint64_t *value = find(place_of(slot));

    if (pio->direction == ACRN_IOREQ_DIR_WRITE) {
        *value = slot->type == ACRN_IOREQ_TYPE_MMIO ? mmio->value : pio->value;
        return slot->type == ACRN_IOREQ_TYPE_PORTIO && pio->address == DONE_PORT;
    }
    if (slot->type == ACRN_IOREQ_TYPE_MMIO)
        mmio->value = *value ^ KEY;
    else
        pio->value = (uint32_t)(*value ^ KEY);
    return 0;
}

static void check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv) {
    struct acrn_io_request_buffer *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct acrn_vm_creation creation = {.ioreq_buf = (uintptr_t)page, .cpu_affinity = (1u << atoi(argv[argc - 1])) - 1};
    struct acrn_vcpu_regs regs = {0};
    int fd = open("/dev/acrn_hsm", O_RDWR | O_CLOEXEC), done = 0;

    check(fd, "open");
    memcpy(&creation.uuid, "floor", 5);
    check(ioctl(fd, ACRN_IOCTL_CREATE_VM, &creation), "CREATE_VM");
    check(ioctl(fd, ACRN_IOCTL_SET_VCPU_REGS, &regs), "SET_VCPU_REGS");
    check(ioctl(fd, ACRN_IOCTL_CREATE_IOREQ_CLIENT, 0), "CREATE_IOREQ_CLIENT");
    check(ioctl(fd, ACRN_IOCTL_START_VM, 0), "START_VM");
    while (done < creation.vcpu_num) {
        check(ioctl(fd, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0), "ATTACH_IOREQ_CLIENT");
        for (int i = 0; i < creation.vcpu_num; i++) {
            struct acrn_io_request *slot = &page->req_slot[i];
            struct acrn_ioreq_notify finish = {.vmid = creation.vmid, .vcpu = (uint32_t)i};

            if (__atomic_load_n(&slot->processed, __ATOMIC_ACQUIRE) != ACRN_IOREQ_STATE_PROCESSING ||
                slot->kernel_handled)
                continue;
            done += answer(slot);
            check(ioctl(fd, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, &finish), "NOTIFY_REQUEST_FINISH");
        }
    }
    ioctl(fd, ACRN_IOCTL_PAUSE_VM, 0);
    ioctl(fd, ACRN_IOCTL_DESTROY_IOREQ_CLIENT, 0);
    check(ioctl(fd, ACRN_IOCTL_DESTROY_VM, 0), "DESTROY_VM");
    return 0;
}
