/* The ring steps of the original device model, written anew from what is known of them: a device asks vq_has_descs, takes
 * a chain by vq_getchain into an array of iovecs and one of flags, returns it by vq_relchain, which writes the used
 * element and raises used.idx for each, and ends a turn by vq_endchains, which fences and decides about an interrupt.
 * avail.idx is loaded for each chain. The device's part calls these from another file there, so none is inlined here.
 *
 * As there: at most 512 descriptors, each buffer within low or high memory, indirect tables checked, last_avail advanced
 * before that; nothing tracks chains in flight, nothing is loaded or stored by one access for certain.
 */
#include "_ring_peers.h"

#include <sys/uio.h>

#include "_atomics.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, MAX_DESCRIPTORS = 512, MAX_IOV = 128 };

struct descriptor { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct used_element { uint32_t id, len; };

#define STEP static __attribute__((noinline))

STEP void *guest_to_host(const struct peer_queue *vq, uint64_t gpa, uint64_t length)
{
    const struct peer_region *low = &vq->regions[0], *high = &vq->regions[1];

    if (gpa < low->size && length <= low->size && gpa + length <= low->size)
        return low->hva + gpa;
    if (gpa >= high->gpa && gpa < high->gpa + high->size && length <= high->size && gpa + length <= high->gpa + high->size)
        return high->hva + (gpa - high->gpa);
    return 0;
}

STEP int vq_has_descs(const struct peer_queue *vq)
{
    uint16_t idx = *(volatile uint16_t *)(vq->avail + 2);

    return vq->desc && vq->next_avail != idx && (uint16_t)(idx - vq->next_avail) <= vq->size;
}

static int add_iov(int i, const volatile struct descriptor *d, const struct peer_queue *vq, struct iovec *iov, int n_iov,
                   uint16_t *flags)
{
    void *hva;

    if (i >= n_iov)
        return -1;
    hva = guest_to_host(vq, d->addr, d->len);
    if (!hva)
        return -1;
    iov[i].iov_base = hva;
    iov[i].iov_len = d->len;
    if (flags)
        flags[i] = d->flags;
    return 0;
}

STEP int vq_getchain(struct peer_queue *vq, uint16_t *head, struct iovec *iov, int n_iov, uint16_t *flags)
{
    const volatile struct descriptor *d, *table;
    uint16_t idx = vq->next_avail, n_available = (uint16_t)(*(volatile uint16_t *)(vq->avail + 2) - idx);
    uint32_t next, n_table;
    int i = 0;

    if (n_available == 0)
        return 0;
    if (n_available > vq->size)
        return -1;
    *head = next = *(volatile uint16_t *)(vq->avail + 4 + 2 * (idx & (vq->size - 1)));
    vq->next_avail++;
    for (;;) {
        if (next >= vq->size)
            return -1;
        d = (const volatile struct descriptor *)vq->desc + next;
        if (!(d->flags & INDIRECT)) {
            if (add_iov(i++, d, vq, iov, n_iov, flags))
                return -1;
        } else {
            n_table = d->len / 16;
            if (d->len & 15 || n_table == 0)
                return -1;
            table = guest_to_host(vq, d->addr, d->len);
            if (!table)
                return -1;
            for (next = 0;;) {
                if (table[next].flags & INDIRECT || add_iov(i++, &table[next], vq, iov, n_iov, flags))
                    return -1;
                if (i > MAX_DESCRIPTORS)
                    return -1;
                if (!(table[next].flags & NEXT))
                    break;
                next = table[next].next;
                if (next >= n_table)
                    return -1;
            }
        }
        if (!(d->flags & NEXT))
            return i;
        if (i > MAX_DESCRIPTORS)
            return -1;
        next = d->next;
    }
}

STEP void vq_relchain(struct peer_queue *vq, uint16_t head, uint32_t length)
{
    volatile uint16_t *idx = (volatile uint16_t *)(vq->used + 2);
    volatile struct used_element *element = (volatile struct used_element *)(vq->used + 4) + (*idx & (vq->size - 1));

    element->id = head;
    element->len = length;
    *idx = (uint16_t)(*idx + 1);
}

STEP int vq_endchains(struct peer_queue *vq)
{
    uint16_t old = vq->next_used, new, event;

    fr_full_fence();
    vq->next_used = new = *(volatile uint16_t *)(vq->used + 2);
    event = *(volatile uint16_t *)(vq->avail + 4 + 2 * vq->size);
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

int original_split(struct peer_queue *vq, uint32_t limit, struct peer_sums *sums)
{
    struct iovec iov[MAX_IOV];
    uint16_t flags[MAX_IOV], head;
    uint64_t addresses = 0, lengths = 0;
    uint32_t n_done = 0, written;
    int n;

    while (n_done < limit && vq_has_descs(vq)) {
        n = vq_getchain(vq, &head, iov, MAX_IOV, flags);
        if (n <= 0)
            break;
        written = 0;
        for (int i = 0; i < n; i++) {
            addresses += (uintptr_t)iov[i].iov_base;
            lengths += iov[i].iov_len;
            written += flags[i] & WRITE ? (uint32_t)iov[i].iov_len : 0;
        }
        vq_relchain(vq, head, written);
        n_done++;
    }
    sums->addresses += addresses;
    sums->lengths += lengths;
    vq->wanted += vq_endchains(vq);
    return (int)n_done;
}
