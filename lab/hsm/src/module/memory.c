/* SET_MEMSEG and UNSET_MEMSEG (kernel: drivers/virt/acrn/mm.c). */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define REGION_OP_SIZE 40        /* one entry of the hypercall's array: a huge page, or a small one */
#define KMALLOC_MAX (4ull << 20) /* the array is one allocation */

struct mapping {
    uint64_t start, end, page_size;
    bool writable;
};

/* What /proc/self/smaps says about the mapping that holds an address. */
static bool find_mapping(uint64_t address, struct mapping *found) {
    FILE *file = fopen("/proc/self/smaps", "re");
    unsigned long long start, end, kib;
    char line[512], rights[8];
    bool inside = false;

    if (file == NULL)
        return false;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%llx-%llx %7s", &start, &end, rights) == 3) {
            if (inside)
                break;
            inside = address >= start && address < end;
            *found = (struct mapping){start, end, PAGE, rights[1] == 'w'};
        } else if (inside && sscanf(line, "KernelPageSize: %llu kB", &kib) == 1) {
            found->page_size = kib << 10;
        }
    }
    fclose(file);
    return inside;
}

bool page_is_writable(uint64_t address) {
    struct mapping mapping;

    return find_mapping(address, &mapping) && mapping.writable;
}

/* A second mapping of the client's page stands for pinning it: it outlives the client's own. NULL: not its memory. */
void *pin_page(uint64_t address) {
    void *page = (void *)(address & ~(PAGE - 1));
    void *pinned;

    if (!page_is_writable(address))
        return NULL;
    pinned = mremap(page, 0, PAGE, MREMAP_MAYMOVE);
    return pinned != MAP_FAILED ? pinned : page; /* private memory has no second mapping */
}

static long misplaced(int error, const char *what) {
    violation("SET_MEMSEG: %s", what);
    return set_failed(error);
}

static long check_ram(const struct vm *vm, const struct acrn_vm_memmap *map) {
    struct mapping mapping;
    uint64_t at = map->vma_base, end = map->vma_base + map->len;

    if (map->len == 0 || map->len % PAGE || map->user_vm_pa % PAGE || map->vma_base % PAGE)
        return misplaced(EINVAL, "address or length is not a multiple of the page size");
    if (end < map->vma_base || map->user_vm_pa + map->len < map->user_vm_pa)
        return misplaced(EFAULT, "the range wraps around");
    while (at < end) {
        if (!find_mapping(at, &mapping) || !mapping.writable)
            return misplaced(EFAULT, "not writable memory of the client");
        if (at == map->vma_base && at % mapping.page_size)
            return misplaced(EINVAL, "starts inside a huge page");
        if (map->user_vm_pa % mapping.page_size)
            violation("SET_MEMSEG: guest address %#llx is not aligned to the pages behind it: small pages in the EPT",
                      (unsigned long long)map->user_vm_pa);
        if (map->len / mapping.page_size * REGION_OP_SIZE > KMALLOC_MAX)
            return set_failed(ENOMEM); /* 409 MiB of small pages are too many for one call */
        at = mapping.end;
    }
    if (map->attr & ~(uint32_t)(ACRN_MEM_ACCESS_RIGHT_MASK | ACRN_MEM_TYPE_MASK))
        violation("SET_MEMSEG: attribute %#x has unknown bits", map->attr);
    for (int i = 0; i < vm->memsegs_used; i++)
        if (map->user_vm_pa < vm->memsegs[i].gpa + vm->memsegs[i].len &&
            vm->memsegs[i].gpa < map->user_vm_pa + map->len)
            violation("SET_MEMSEG: overlaps the segment at %#llx", (unsigned long long)vm->memsegs[i].gpa);
    return 0;
}

long set_memseg(struct vm *vm, const struct acrn_vm_memmap *map) {
    struct memseg *segment = &vm->memsegs[vm->memsegs_used];

    if (map->type != ACRN_MEMMAP_RAM && map->type != ACRN_MEMMAP_MMIO)
        return misplaced(EINVAL, "no such type");
    if (map->type == ACRN_MEMMAP_RAM && check_ram(vm, map) < 0)
        return -1;
    if (vm->memsegs_used == MAX_MEMSEGS || vm->ram_mappings == MAX_MEMSEGS)
        return misplaced(ENOMEM, "more than 256 segments");
    *segment = (struct memseg){map->type, map->user_vm_pa, map->vma_base, map->len};
    if (map->type == ACRN_MEMMAP_RAM && guest_set_memory(vm, vm->memsegs_used, segment) < 0)
        return set_failed(EPERM);
    vm->ram_mappings += map->type == ACRN_MEMMAP_RAM;
    vm->memsegs_used++;
    return 0;
}

/* The hypervisor takes any guest range away; the module lets only those through that say they are MMIO. */
long unset_memseg(struct vm *vm, const struct acrn_vm_memmap *map) {
    struct memseg gone;

    if (map->type != ACRN_MEMMAP_MMIO) {
        violation("UNSET_MEMSEG of type %u: only MMIO is taken", map->type);
        return set_failed(EINVAL);
    }
    for (int i = 0; i < vm->memsegs_used; i++) {
        if (vm->memsegs[i].gpa != map->user_vm_pa || vm->memsegs[i].len != map->len)
            continue;
        gone = vm->memsegs[i];
        gone.len = 0;
        if (gone.type == ACRN_MEMMAP_RAM)
            guest_set_memory(vm, i, &gone);
        vm->memsegs[i].len = 0; /* the slot's number stays taken */
        vm->memsegs[i].gpa = ~0ull;
        return 0;
    }
    violation("UNSET_MEMSEG: no segment at %#llx", (unsigned long long)map->user_vm_pa);
    return set_failed(EPERM);
}
