# Guest buffers as runs of segments: bytes of them copied out, copied in, or named for a system call. All inlined.

from acrn_dm._fastring cimport FrSegment
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy


# Copy *length* bytes from *offset* on to *host*; returns how many there were.
cdef inline uint32_t gather(
    const FrSegment *segments, uint32_t n, uint32_t offset, uint8_t *host, uint32_t length,
) noexcept nogil:
    cdef uint32_t done = 0
    cdef uint32_t i
    cdef size_t step
    if n > 0 and <size_t>offset + length <= segments[0].len:
        memcpy(host, <const uint8_t *>segments[0].hva + offset, length)
        return length
    for i in range(n):
        if offset >= segments[i].len:
            offset -= <uint32_t>segments[i].len
            continue
        step = min(<size_t>(length - done), segments[i].len - offset)
        memcpy(host + done, <const uint8_t *>segments[i].hva + offset, step)
        done += <uint32_t>step
        offset = 0
        if done == length:
            break
    return done


# The same the other way round.
cdef inline uint32_t scatter(
    const FrSegment *segments, uint32_t n, uint32_t offset, const uint8_t *host, uint32_t length,
) noexcept nogil:
    cdef uint32_t done = 0
    cdef uint32_t i
    cdef size_t step
    if n > 0 and <size_t>offset + length <= segments[0].len:
        memcpy(<uint8_t *>segments[0].hva + offset, host, length)
        return length
    for i in range(n):
        if offset >= segments[i].len:
            offset -= <uint32_t>segments[i].len
            continue
        step = min(<size_t>(length - done), segments[i].len - offset)
        memcpy(<uint8_t *>segments[i].hva + offset, host + done, step)
        done += <uint32_t>step
        offset = 0
        if done == length:
            break
    return done


# Name what follows *offset*, in at most *room* entries of *into*; how many it takes, more than *room* if too many.
cdef inline uint32_t name_rest(
    const FrSegment *segments, uint32_t n, uint32_t offset, FrSegment *into, uint32_t room,
) noexcept nogil:
    cdef uint32_t count = 0
    cdef uint32_t i
    for i in range(n):
        if offset >= segments[i].len:
            offset -= <uint32_t>segments[i].len
            continue
        if count == room:
            return room + 1
        into[count].hva = <uint8_t *>segments[i].hva + offset
        into[count].len = segments[i].len - offset
        count += 1
        offset = 0
    return count
