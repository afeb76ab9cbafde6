/*
 * The emulated Hypervisor Service Module: /dev/acrn_hsm of linux/acrn.h for one process, on top of /dev/kvm; or what it
 * was in 2018, /dev/acrn_vhm.
 *
 * Preloaded into a device model (LD_PRELOAD), it plays two parts. As the kernel's module it answers the ioctls and
 * keeps the rules of drivers/virt/acrn; as the hypervisor below it runs the vCPUs and emulates the I/O APIC and PICs,
 * which ACRN has 48 and 16 pins of. What a correct client never does is answered as the kernel would, and written to
 * the report besides: a test fails on any line there.
 *
 * Environment, all optional:
 *   RIG_REPORT   file: one line a violation
 *   RIG_TRACE    file: one JSON object a call, with its arguments and result
 *   RIG_REQUESTS 1: the trace has each request, too ("REQUEST")
 *   RIG_STATS    file: one JSON object a VM that ended: counts, and the times from posted to answered
 *   RIG_FAIL     "CALL@N=ERRNO,...": the N-th CALL (N absent: the first; *: all) fails with that number
 *   RIG_PCPUS    physical CPUs that --cpu_affinity may name (default 8); their LAPIC ids are their numbers
 *   RIG_VCPUS    vCPUs of a VM that names none (default 1)
 *   RIG_SPURIOUS every N-th ATTACH returns without a request
 *   RIG_ACRN     1: the module of ACRN's own kernel: asynchronous kicks and the event ring work
 *   RIG_PM       1: the hypervisor knows two performance states and two idle states
 *   RIG_VHM      1: the module of 2018 (vhm.c)
 *   RIG_SLOW     1: no eventfd is bound in KVM; the module signals it, as the real one does
 *   RIG_STORM    N: no guest; the vCPUs make N accesses in all and check each answer (storm.c); needs no /dev/kvm
 */
#ifndef RIG_H
#define RIG_H

#include <linux/acrn.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ACRN's own kernel has more than linux/acrn.h. */
#define RIG_IOCTL_SETUP_ASYNCIO _IOW(ACRN_IOCTL_TYPE, 0x90, __u64)
#define RIG_IOCTL_SETUP_VM_EVENT_RING _IOW(ACRN_IOCTL_TYPE, 0xa0, __u64)
#define RIG_IOCTL_SETUP_VM_EVENT_FD _IOW(ACRN_IOCTL_TYPE, 0xa1, int)
#define RIG_IOEVENTFD_FLAG_ASYNCIO 0x08

#define PAGE 4096ull
#define IOAPIC_PINS 48
#define IOAPIC_BASE 0xfec00000ull
#define PIC_PINS 16
#define MAX_MEMSEGS 256
#define MAX_BINDINGS 256
#define ASYNCIO_MAX 64 /* the hypervisor's, of one virtual machine */

enum vm_state { VM_POWEROFF, VM_CREATED, VM_RUNNING, VM_PAUSED }; /* the hypervisor's, not the module's */

struct access {
    uint32_t type; /* ACRN_IOREQ_TYPE_* */
    bool write;
    uint64_t address;
    uint32_t size;
    uint64_t value; /* in and out */
};

struct vcpu {
    struct vm *vm;
    int id;
    uint32_t apic_id;
    int fd;
    struct kvm_run *run;
    size_t run_size;
    pthread_t thread;
    bool started;
    bool in_guest;               /* under vm->lock */
    struct acrn_io_request sent; /* the slot as it was handed to the client */
    bool waiting;                /* its request is with the default client; under vm->ioreq_lock */
    uint64_t posted_ns;
    pthread_cond_t answered;
};

struct memseg {
    uint32_t type;
    uint64_t gpa, hva, len;
};

struct ioeventfd {
    int fd; /* our duplicate: the caller may close its own */
    uint64_t id;
    bool pio, wildcard, in_kvm, asyncio;
    uint64_t addr, data;
    uint32_t len;
};

struct irqfd {
    int fd;
    uint64_t id;
    struct acrn_msi_entry msi;
};

struct pic {
    uint8_t irr, imr, isr, lines, elcr, base;
    uint8_t init_step; /* which ICW comes next; 0: none */
    uint8_t priority_add;
    bool needs_icw4, auto_eoi, rotate_on_auto_eoi, special_mask, read_isr, poll;
};

/* ACRN: include/public/acrn_common.h, shared_buf. */
struct shared_ring {
    uint64_t magic;
    uint32_t count, element, head, tail, flags, reserved, overruns, size;
    uint32_t padding[6];
    uint8_t data[];
};

struct counters {
    uint64_t pio, mmio, pcicfg, wp, cf8, kernel_handled, notify, attach, spurious, msi, irqline, exits;
};

struct vm {
    pid_t pid;
    int fd;
    bool vhm;       /* the interface of 2018 */
    uint32_t owner; /* a slot's word at 132 when it is the client's: 0, or in 2018 the client's number */
    bool created; /* the module's view: the descriptor has a VM */
    bool destroyed;
    enum vm_state state;
    uint16_t vmid, vcpu_num;
    uint64_t flags;

    pthread_mutex_t lock; /* life cycle */
    pthread_cond_t left_guest;
    struct vcpu vcpus[ACRN_IO_REQUEST_MAX];
    bool regs_set;
    struct acrn_regs boot_regs;
    int vm_fd;

    struct memseg memsegs[MAX_MEMSEGS];
    int memsegs_used;
    int ram_mappings; /* the module never reuses one */

    pthread_mutex_t ioreq_lock;
    struct acrn_io_request_buffer *page;
    bool client, aborted, storming;
    bool client_stayed; /* DESTROY_IOREQ_CLIENT was made to fail */
    uint32_t client_generation;
    uint32_t wake; /* futex */
    uint32_t pending; /* bitmap of slots with the default client */
    uint32_t conf_addr; /* 0xCF8 */
    struct counters count;
    uint32_t *samples_ns;
    size_t samples, samples_room;

    pthread_mutex_t binding_lock;
    struct ioeventfd ioeventfds[MAX_BINDINGS];
    int ioeventfds_used;
    struct irqfd irqfds[MAX_BINDINGS];
    int irqfds_used;
    struct shared_ring *kick_ring, *event_ring; /* ours: second mappings of the client's pages */
    int event_fd;                               /* -1: none */

    pthread_mutex_t irq_lock;
    uint64_t rte[IOAPIC_PINS];
    uint64_t pin_state;
    uint32_t ioregsel, ioapic_id;
    struct pic pics[2];
};

/* report.c */
void report_open(void);
void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *setting(const char *name);
long number_setting(const char *name, long otherwise);
int injected_failure(const char *call);
void trace(const char *call, long result, const char *format, ...) __attribute__((format(printf, 3, 4)));
void write_stats(struct vm *vm);
uint64_t now_ns(void);

/* hsm.c */
const char *hsm_node(void);
struct vm *hsm_open(int fd);
long hsm_ioctl(struct vm *vm, unsigned long request, unsigned long argument);
long module_call(struct vm *vm, unsigned long request, unsigned long argument);
void hsm_close(struct vm *vm);
long set_failed(int error);
long wrong(int error, const char *what);
long refused(const struct vm *vm, const char *call);
bool copy_in(void *to, unsigned long from, size_t size);
bool copy_out(unsigned long to, const void *from, size_t size);

/* create.c */
long create_vm(struct vm *vm, unsigned long argument);
void add_vcpu(struct vm *vm, uint32_t apic_id);

/* vhm.c */
long vhm_ioctl(struct vm *vm, unsigned long request, unsigned long argument);

/* extras.c */
long get_cpu_state(struct vm *vm, unsigned long argument);
long setup_asyncio(struct vm *vm, uint64_t address);
long setup_event_ring(struct vm *vm, uint64_t address);
long setup_event_fd(struct vm *vm, int fd);
void send_event(struct vm *vm, uint32_t type);
void extras_release(struct vm *vm);

/* memory.c */
long set_memseg(struct vm *vm, const struct acrn_vm_memmap *map);
long unset_memseg(struct vm *vm, const struct acrn_vm_memmap *map);
bool page_is_writable(uint64_t address);
void *pin_page(uint64_t address);

/* ioreq.c */
bool ioreq_post(struct vcpu *vcpu, struct access *access);
long ioreq_client_create(struct vm *vm);
long ioreq_client_destroy(struct vm *vm);
long ioreq_attach(struct vm *vm);
long ioreq_notify(struct vm *vm, const struct acrn_ioreq_notify *notify);
void ioreq_clear(struct vm *vm);
void ioreq_abort(struct vm *vm);
bool ioreq_outstanding(struct vm *vm);

/* eventfds.c */
long config_ioeventfd(struct vm *vm, const struct acrn_ioeventfd *args);
long config_irqfd(struct vm *vm, const struct acrn_irqfd *args);
bool ioeventfd_claims(struct vm *vm, const struct access *access);
void ioeventfd_handle(struct vm *vm, struct access *access);
bool ioeventfd_async(struct vm *vm, const struct access *access);
void bindings_install(struct vm *vm);
void bindings_release(struct vm *vm);

/* irq.c */
void ioapic_reset(struct vm *vm);
uint32_t ioapic_read(struct vm *vm, uint64_t offset);
void ioapic_write(struct vm *vm, uint64_t offset, uint32_t value);
void ioapic_eoi(struct vm *vm, uint8_t vector);
void set_line(struct vm *vm, uint32_t gsi, uint32_t operation);
void install_routes(struct vm *vm);
long inject_msi(struct vm *vm, uint64_t addr, uint64_t data);

/* pic.c; with vm->irq_lock held */
void pic_reset(struct vm *vm);
void pic_set_line(struct vm *vm, int pin, bool high);
bool pic_port(uint16_t port);
uint8_t pic_read(struct vm *vm, uint16_t port);
void pic_write(struct vm *vm, uint16_t port, uint8_t value);
bool pic_output(struct vm *vm);
uint8_t pic_acknowledge(struct vm *vm);

/* kvm.c, cpu.c */
long guest_create(struct vm *vm);
long guest_start(struct vm *vm);
void guest_pause(struct vm *vm);
void guest_stop(struct vm *vm);
void guest_destroy(struct vm *vm);
long guest_set_memory(struct vm *vm, int slot, const struct memseg *segment);
void guest_kick(struct vcpu *vcpu);
bool enter_guest(struct vcpu *vcpu);
void leave_guest(struct vcpu *vcpu);
long cpu_setup(struct vcpu *vcpu, int kvm_fd);
long cpu_set_boot_regs(struct vcpu *vcpu, const struct acrn_regs *regs);

/* storm.c */
void *storm_main(void *vcpu);

#endif
