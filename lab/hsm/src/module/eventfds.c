/*
 * IOEVENTFD and IRQFD by the module's rules (kernel: drivers/virt/acrn/ioeventfd.c and irqfd.c), KVM's below for speed.
 *
 * The module owns the whole range of an ioeventfd: a read gives 0, a write that nothing matches vanishes, a narrower
 * write at the address matches. KVM takes only writes of the exact length; the others come here as exits. Both kinds of
 * binding are found again by their eventfd, whatever its descriptor's number.
 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MSI_BASE 0xfee00000ull

/* The kernel's number of an eventfd plus one; 0 when the descriptor is none. */
static uint64_t eventfd_id(int fd) {
    unsigned long long id;
    uint64_t found = 0;
    char line[128];
    FILE *file;

    snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
    file = fopen(line, "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "eventfd-id: %llu", &id) == 1)
            found = id + 1;
    fclose(file);
    return found;
}

static long bad_fd(int fd) {
    return set_failed(fcntl(fd, F_GETFD) < 0 ? EBADF : EINVAL);
}

static int kvm_ioeventfd(struct vm *vm, const struct ioeventfd *p, bool assign) {
    struct kvm_ioeventfd binding = {.fd = p->fd, .addr = p->addr, .len = p->len, .datamatch = p->data};

    binding.flags = (p->wildcard ? 0u : KVM_IOEVENTFD_FLAG_DATAMATCH) | (p->pio ? KVM_IOEVENTFD_FLAG_PIO : 0u) |
                    (assign ? 0u : KVM_IOEVENTFD_FLAG_DEASSIGN);
    return ioctl(vm->vm_fd, KVM_IOEVENTFD, &binding);
}

/* KVM refuses what overlaps another; the module then finds the right one by itself. */
static void bind_in_kvm(struct vm *vm, struct ioeventfd *p) {
    p->in_kvm = vm->vm_fd >= 0 && !number_setting("RIG_SLOW", 0) && kvm_ioeventfd(vm, p, true) == 0;
}

static int asynchronous_kicks(const struct vm *vm) {
    int found = 0;

    for (int i = 0; i < vm->ioeventfds_used; i++)
        found += vm->ioeventfds[i].asyncio;
    return found;
}

static long assign_ioeventfd(struct vm *vm, const struct acrn_ioeventfd *args, uint64_t id) {
    struct ioeventfd *p = &vm->ioeventfds[vm->ioeventfds_used];
    struct ioeventfd wanted = {
        .id = id,
        .pio = args->flags & ACRN_IOEVENTFD_FLAG_PIO,
        .wildcard = !(args->flags & ACRN_IOEVENTFD_FLAG_DATAMATCH),
        .asyncio = (args->flags & RIG_IOEVENTFD_FLAG_ASYNCIO) && number_setting("RIG_ACRN", 0),
        .addr = args->addr,
        .data = args->data,
        .len = args->len,
    };

    if (args->addr + args->len < args->addr ||
        (args->len != 1 && args->len != 2 && args->len != 4 && args->len != 8)) {
        violation("IOEVENTFD: length %u: only 1, 2, 4 and 8 are taken", args->len);
        return set_failed(EINVAL);
    }
    if (wanted.asyncio && vm->kick_ring == NULL) {
        violation("IOEVENTFD: asynchronous before SETUP_ASYNCIO");
        return set_failed(ENODEV);
    }
    if (wanted.asyncio && asynchronous_kicks(vm) == ASYNCIO_MAX) {
        violation("IOEVENTFD: the hypervisor has no room for one more asynchronous kick");
        return set_failed(EINVAL);
    }
    for (int i = 0; i < vm->ioeventfds_used; i++) {
        const struct ioeventfd *other = &vm->ioeventfds[i];

        if (other->id == id && other->addr == wanted.addr && other->pio == wanted.pio &&
            (other->wildcard || wanted.wildcard || other->data == wanted.data))
            return set_failed(EEXIST);
    }
    if (vm->ioeventfds_used == MAX_BINDINGS)
        return set_failed(ENOMEM);
    *p = wanted;
    p->fd = fcntl((int)args->fd, F_DUPFD_CLOEXEC, 3);
    bind_in_kvm(vm, p);
    vm->ioeventfds_used++;
    return 0;
}

static void drop_ioeventfd(struct vm *vm, int index) {
    struct ioeventfd *p = &vm->ioeventfds[index];

    if (p->in_kvm)
        kvm_ioeventfd(vm, p, false);
    close(p->fd);
    vm->ioeventfds_used--;
    memmove(p, p + 1, (size_t)(vm->ioeventfds_used - index) * sizeof(*p));
}

static long deassign_ioeventfd(struct vm *vm, const struct acrn_ioeventfd *args, uint64_t id) {
    for (int i = 0; i < vm->ioeventfds_used; i++) {
        if (vm->ioeventfds[i].id != id)
            continue;
        if (vm->ioeventfds[i].asyncio && !(args->flags & RIG_IOEVENTFD_FLAG_ASYNCIO))
            violation("IOEVENTFD: an asynchronous binding is taken away without its flag: the hypervisor keeps it");
        if (vm->ioeventfds[i].addr != args->addr)
            violation("IOEVENTFD: DEASSIGN at %#llx takes the binding at %#llx: the module looks at the eventfd only",
                      (unsigned long long)args->addr, (unsigned long long)vm->ioeventfds[i].addr);
        drop_ioeventfd(vm, i);
        return 0;
    }
    violation("IOEVENTFD: DEASSIGN of an eventfd that is not bound");
    return 0;
}

long config_ioeventfd(struct vm *vm, const struct acrn_ioeventfd *args) {
    uint64_t id = eventfd_id((int)args->fd);
    long result;

    if (id == 0)
        return bad_fd((int)args->fd);
    pthread_mutex_lock(&vm->binding_lock);
    result = args->flags & ACRN_IOEVENTFD_FLAG_DEASSIGN ? deassign_ioeventfd(vm, args, id)
                                                        : assign_ioeventfd(vm, args, id);
    pthread_mutex_unlock(&vm->binding_lock);
    return result;
}

static bool same_space(const struct ioeventfd *p, const struct access *access) {
    return p->pio == (access->type == ACRN_IOREQ_TYPE_PORTIO);
}

bool ioeventfd_claims(struct vm *vm, const struct access *access) {
    bool claims = false;

    pthread_mutex_lock(&vm->binding_lock);
    for (int i = 0; i < vm->ioeventfds_used; i++) {
        const struct ioeventfd *p = &vm->ioeventfds[i];

        claims |= same_space(p, access) && access->address >= p->addr &&
                  access->address + access->size <= p->addr + p->len;
    }
    pthread_mutex_unlock(&vm->binding_lock);
    return claims;
}

/* The first in the list that takes a write; with binding_lock held. */
static struct ioeventfd *match(struct vm *vm, const struct access *access) {
    for (int i = 0; i < vm->ioeventfds_used; i++) {
        struct ioeventfd *p = &vm->ioeventfds[i];

        if (same_space(p, access) && p->addr == access->address && p->len >= access->size &&
            (p->wildcard || p->data == access->value))
            return p;
    }
    return NULL;
}

static void signal_fd(int fd) {
    uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) < 0)
        violation("signalling an eventfd: errno %d", errno);
}

void ioeventfd_handle(struct vm *vm, struct access *access) {
    struct ioeventfd *p;

    if (!access->write) {
        access->value = 0;
        return;
    }
    pthread_mutex_lock(&vm->binding_lock);
    p = match(vm, access);
    if (p != NULL)
        signal_fd(p->fd);
    pthread_mutex_unlock(&vm->binding_lock);
}

/* The hypervisor puts the eventfd into the ring and the vCPU runs on: no request. */
bool ioeventfd_async(struct vm *vm, const struct access *access) {
    struct ioeventfd *p;
    bool taken;

    pthread_mutex_lock(&vm->binding_lock);
    p = match(vm, access);
    taken = p != NULL && p->asyncio;
    if (taken)
        signal_fd(p->fd);
    pthread_mutex_unlock(&vm->binding_lock);
    return taken;
}

static int kvm_irqfd(struct vm *vm, const struct irqfd *p, bool assign) {
    struct kvm_irqfd binding = {.fd = (uint32_t)p->fd, .gsi = (uint32_t)(IOAPIC_PINS + (p - vm->irqfds))};

    binding.flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN;
    return vm->vm_fd >= 0 ? ioctl(vm->vm_fd, KVM_IRQFD, &binding) : 0;
}

static long assign_irqfd(struct vm *vm, const struct acrn_irqfd *args, uint64_t id) {
    struct irqfd *p = NULL;

    for (int i = MAX_BINDINGS - 1; i >= 0; i--) {
        if (vm->irqfds[i].id == id)
            return set_failed(EBUSY);
        if (vm->irqfds[i].id == 0)
            p = &vm->irqfds[i];
    }
    if (p == NULL)
        return set_failed(ENOMEM);
    if ((args->msi.msi_addr & ~0xfffffull) != MSI_BASE)
        violation("IRQFD: address %#llx is no MSI: each signal would fail", (unsigned long long)args->msi.msi_addr);
    *p = (struct irqfd){.fd = fcntl(args->fd, F_DUPFD_CLOEXEC, 3), .id = id, .msi = args->msi};
    vm->irqfds_used++;
    install_routes(vm);
    if (kvm_irqfd(vm, p, true) < 0)
        violation("IRQFD: KVM refuses it: errno %d", errno);
    return 0;
}

static void drop_irqfd(struct vm *vm, struct irqfd *p) {
    kvm_irqfd(vm, p, false);
    close(p->fd);
    memset(p, 0, sizeof(*p));
    vm->irqfds_used--;
    install_routes(vm);
}

static long deassign_irqfd(struct vm *vm, uint64_t id) {
    for (int i = 0; i < MAX_BINDINGS; i++) {
        if (vm->irqfds[i].id == id) {
            drop_irqfd(vm, &vm->irqfds[i]);
            return 0;
        }
    }
    violation("IRQFD: DEASSIGN of an eventfd that is not bound");
    return 0;
}

long config_irqfd(struct vm *vm, const struct acrn_irqfd *args) {
    uint64_t id = eventfd_id(args->fd);
    long result;

    if (id == 0)
        return bad_fd(args->fd);
    pthread_mutex_lock(&vm->irq_lock);
    result = args->flags & ACRN_IRQFD_FLAG_DEASSIGN ? deassign_irqfd(vm, id) : assign_irqfd(vm, args, id);
    pthread_mutex_unlock(&vm->irq_lock);
    return result;
}

/* A new KVM machine below the same VM: the module's bindings outlive a reset. */
void bindings_install(struct vm *vm) {
    pthread_mutex_lock(&vm->binding_lock);
    for (int i = 0; i < vm->ioeventfds_used; i++)
        bind_in_kvm(vm, &vm->ioeventfds[i]);
    pthread_mutex_unlock(&vm->binding_lock);
    pthread_mutex_lock(&vm->irq_lock);
    install_routes(vm);
    for (int i = 0; i < MAX_BINDINGS; i++)
        if (vm->irqfds[i].id != 0)
            kvm_irqfd(vm, &vm->irqfds[i], true);
    pthread_mutex_unlock(&vm->irq_lock);
}

void bindings_release(struct vm *vm) {
    pthread_mutex_lock(&vm->binding_lock);
    while (vm->ioeventfds_used > 0)
        drop_ioeventfd(vm, vm->ioeventfds_used - 1);
    pthread_mutex_unlock(&vm->binding_lock);
    pthread_mutex_lock(&vm->irq_lock);
    for (int i = 0; i < MAX_BINDINGS; i++)
        if (vm->irqfds[i].id != 0)
            drop_irqfd(vm, &vm->irqfds[i]);
    pthread_mutex_unlock(&vm->irq_lock);
}
