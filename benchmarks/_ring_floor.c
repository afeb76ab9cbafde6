/* The bare loop: what a device has to do for a chain at the least, in C with nothing around it.
 *
 * Definition. A turn loads the driver's index (split) or the flags of the next descriptor (packed), and for each chain:
 * loads the head, checks that it is in the table; loads each descriptor's fields once; finds the region of each buffer
 * and checks that all of the buffer lies in it; enters an indirect table, checked likewise; bounds the walk by the size
 * of the queue; uses no descriptor of a packed ring that is not marked available, in the middle of a list either (virtio
 * 1.4, 2.8.14); sums addresses and lengths; writes the used element. Then it publishes once, fences and decides once
 * whether the driver wants an interrupt. State stands in local variables, and all is one function.
 *
 * What it has not: an interface (no chain, no segment is stored; who needs them has to store them), chains in flight and
 * their check, buffers across regions, faults that are told apart, order of readable and writable buffers. The ratio to
 * it says what those cost.
 */
#include "_ring_peers.h"

#include "_atomics.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15, MARKS = AVAIL | USED };
enum { EVENT_DISABLE = 1, EVENT_DESC = 2 };

static inline uint8_t *translate(const struct peer_queue *queue, uint64_t gpa, uint32_t length)
{
    for (uint32_t i = 0; i < queue->n_regions; i++) {
        uint64_t offset = gpa - queue->regions[i].gpa;
        if (offset < queue->regions[i].size)
            return queue->regions[i].size - offset >= length ? queue->regions[i].hva + offset : 0;
    }
    return 0;
}

int floor_split(struct peer_queue *queue, uint32_t limit, struct peer_sums *sums)
{
    const uint8_t *avail = queue->avail;
    uint8_t *used = queue->used;
    uint32_t size = queue->size, mask = size - 1, n_done;
    uint16_t next_avail = queue->next_avail, next_used = queue->next_used, old = next_used, event;
    uint64_t addresses = 0, lengths = 0;

    if (next_avail == queue->seen_avail)
        queue->seen_avail = fr_load_acquire_u16(avail + 2);
    for (n_done = 0; n_done < limit && next_avail != queue->seen_avail; n_done++) {
        const uint8_t *table = queue->desc;
        uint32_t head = fr_load_u16(avail + 4 + 2 * (next_avail & mask)), index = head, n_entries = size;
        uint32_t n_walked = 0, written = 0;

        while (index < n_entries && n_walked < size) {
            const uint8_t *at = table + 16 * index;
            uint32_t length = fr_load_u32(at + 8);
            uint16_t flags = fr_load_u16(at + 12);
            uint8_t *hva = translate(queue, fr_load_u64(at), length);

            if (!hva)
                return (int)n_done;
            if (flags & INDIRECT) {
                table = hva;
                n_entries = length / 16;
                index = 0;
                continue;
            }
            addresses += (uintptr_t)hva;
            lengths += length;
            written += flags & WRITE ? length : 0;
            n_walked++;
            if (!(flags & NEXT))
                break;
            index = fr_load_u16(at + 14);
        }
        fr_store_u32(used + 4 + 8 * (next_used & mask), head);
        fr_store_u32(used + 8 + 8 * (next_used & mask), written);
        next_used++;
        next_avail++;
    }
    sums->addresses += addresses;
    sums->lengths += lengths;
    queue->next_avail = next_avail;
    queue->next_used = next_used;
    if (next_used == old)
        return 0;
    fr_store_release_u16(used + 2, next_used);
    fr_full_fence();
    event = fr_load_u16(avail + 4 + 2 * size);
    queue->wanted += (uint16_t)(next_used - event - 1) < (uint16_t)(next_used - old);
    return (int)n_done;
}

int floor_packed(struct peer_queue *queue, uint32_t limit, struct peer_sums *sums)
{
    uint8_t *ring = queue->desc, *first = 0;
    uint32_t size = queue->size, slot = queue->next_avail, used_slot = queue->next_used, n_done, n_used = 0, event;
    uint16_t marks = queue->avail_marks, used_marks = queue->used_marks, first_flags = 0, old;
    uint64_t addresses = 0, lengths = 0;

    for (n_done = 0; n_done < limit; n_done++) {
        uint16_t flags = fr_load_acquire_u16(ring + 16 * slot + 14), id = 0, kind = 0;
        uint32_t n = 0, written = 0;
        uint8_t *element = ring + 16 * used_slot;

        if ((flags & MARKS) != marks)
            break;
        for (;;) {
            const uint8_t *at = ring + 16 * slot;
            uint32_t length = fr_load_u32(at + 8);
            uint8_t *hva = translate(queue, fr_load_u64(at), length);

            if (!hva)
                return (int)n_done;
            id = fr_load_u16(at + 12);
            n++;
            if (++slot == size) {
                slot = 0;
                marks ^= MARKS;
            }
            if (flags & INDIRECT) {
                for (uint32_t i = 0; i < length / 16 && i < size; i++) {
                    uint32_t each = fr_load_u32(hva + 16 * i + 8);
                    uint8_t *buffer = translate(queue, fr_load_u64(hva + 16 * i), each);

                    if (!buffer)
                        return (int)n_done;
                    addresses += (uintptr_t)buffer;
                    lengths += each;
                    if (fr_load_u16(hva + 16 * i + 14) & WRITE) {
                        written += each;
                        kind = WRITE;
                    }
                }
                break;
            }
            addresses += (uintptr_t)hva;
            lengths += length;
            if (flags & WRITE) {
                written += length;
                kind = WRITE;
            }
            if (!(flags & NEXT) || n == size)
                break;
            flags = fr_load_u16(ring + 16 * slot + 14);
            if ((flags & MARKS) != marks)
                return (int)n_done;
        }
        fr_store_u32(element + 8, written);
        fr_store_u16(element + 12, id);
        if (first)
            fr_store_u16(element + 14, used_marks | kind);
        else {
            first = element;
            first_flags = used_marks | kind;
        }
        n_used += n;
        used_slot += n;
        if (used_slot >= size) {
            used_slot -= size;
            used_marks ^= MARKS;
        }
    }
    sums->addresses += addresses;
    sums->lengths += lengths;
    queue->next_avail = (uint16_t)slot;
    queue->next_used = (uint16_t)used_slot;
    queue->avail_marks = marks;
    queue->used_marks = used_marks;
    if (!first)
        return 0;
    fr_store_release_u16(first + 14, first_flags);
    fr_full_fence();
    event = fr_load_u32(queue->avail);
    old = (uint16_t)((event & 0x7FFF) - ((event >> 15 & 1) != (used_marks != 0) ? size : 0));
    if ((event >> 16 & 3) == EVENT_DESC)
        queue->wanted += (uint16_t)(used_slot - old - 1) < (uint16_t)n_used;
    else
        queue->wanted += (event >> 16 & 3) != EVENT_DISABLE;
    return (int)n_done;
}
