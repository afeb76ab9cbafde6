/*
 * The least that C can do with a guest's exits on KVM: reads are answered with a constant, writes of memory are told to
 * an eventfd, the first serial port goes to stdout until a line ends. Run: FLOOR GUEST, an ELF file for flat 32-bit
 * protected mode (_exit_guest.c). With no GUEST it says what kHz the time-stamp counter has.
 */
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY (16u << 20)
#define COM1 0x3f8
#define ANSWER 0x0f

static int check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static uint32_t load(const char *path, uint8_t *memory) {
    static uint8_t file[1 << 16];
    const Elf32_Ehdr *head = (const Elf32_Ehdr *)file;
    const Elf32_Phdr *part = (const Elf32_Phdr *)(file + sizeof *head);
    int fd = check(open(path, O_RDONLY | O_CLOEXEC), path);

    check((int)read(fd, file, sizeof file), path);
    close(fd);
    for (int i = 0; i < head->e_phnum; i++)
        if (part[i].p_type == PT_LOAD)
            memcpy(memory + part[i].p_paddr, file + part[i].p_offset, part[i].p_filesz);
    return head->e_entry;
}

static void enter(int vcpu, uint32_t entry) {
    struct kvm_segment flat = {.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_regs regs = {.rip = entry, .rflags = 2};
    struct kvm_sregs sregs;

    check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs = flat;
    flat.selector = 16, flat.type = 3;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
    sregs.cr0 |= 1;
    check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

/* Whether the guest has said all. */
static int port(struct kvm_run *run) {
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    if (run->io.direction == KVM_EXIT_IO_IN) {
        memset(data, ANSWER, run->io.size);
        return 0;
    }
    if (run->io.port == COM1)
        putchar(*data);
    return run->io.port == COM1 && *data == '\n';
}

static void serve(int vcpu, struct kvm_run *run, int kicked) {
    static const uint64_t one = 1;

    for (;;) {
        check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        if (run->exit_reason == KVM_EXIT_MMIO) {
            if (!run->mmio.is_write)
                memset(run->mmio.data, ANSWER, sizeof run->mmio.data);
            else if (write(kicked, &one, sizeof one) != sizeof one)
                abort();
        } else if (run->exit_reason != KVM_EXIT_IO) {
            fprintf(stderr, "exit %u\n", run->exit_reason);
            exit(1);
        } else if (port(run)) {
            return;
        }
    }
}

int main(int argc, char **argv) {
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY};
    int system = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    int vm = check(ioctl(system, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int size = check(ioctl(system, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"), vcpu;
    struct kvm_run *run;

    check(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
    check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    if (argc < 2) {
        printf("%d\n", check(ioctl(vcpu, KVM_GET_TSC_KHZ, 0), "KVM_GET_TSC_KHZ"));
        return 0;
    }
    region.userspace_addr = (uintptr_t)memory;
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    enter(vcpu, load(argv[1], memory));
    serve(vcpu, run, check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
    return 0;
}
