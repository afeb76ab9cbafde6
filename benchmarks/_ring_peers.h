/* What the native rings are measured against: the bare loop (_ring_floor.c) and the original's ring steps
 * (_ring_original.c). Both work on the same guest memory and report what they found. */
#ifndef RING_PEERS_H
#define RING_PEERS_H

#include <stdint.h>

struct peer_region { uint64_t gpa, size; uint8_t *hva; };

/* Of all descriptors that a turn has passed; the driver knows what they must be. */
struct peer_sums { uint64_t addresses, lengths; };

/* A queue of either format: of a packed one avail and used are the event suppression structures of driver and device. */
struct peer_queue {
    const struct peer_region *regions;
    uint32_t n_regions, size;
    uint8_t *desc, *avail, *used;
    uint16_t next_avail, seen_avail, next_used; /* of a packed one: slots, and seen_avail is not used */
    uint16_t avail_marks, used_marks;           /* of a packed one */
    int wanted;                                 /* interrupts that the driver wanted so far */
};

/* One turn: up to limit chains taken, looked at, returned and shown. Returns how many. */
int floor_split(struct peer_queue *queue, uint32_t limit, struct peer_sums *sums);
int floor_packed(struct peer_queue *queue, uint32_t limit, struct peer_sums *sums);
int original_split(struct peer_queue *queue, uint32_t limit, struct peer_sums *sums);

#endif
