/* liburing where the build found it; else functions that say ENOSYS, so that the module is there all the same. */
#ifndef ACRN_DM_URING_H
#define ACRN_DM_URING_H

#include <errno.h>

#ifdef ACRN_DM_LIBURING

#include <liburing.h>
#define BLK_HAS_LIBURING 1

/* Newer than some headers, and than some kernels, which refuse them: io_uring_queue_init then gets none. */
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_TASKRUN_FLAG
#define IORING_SETUP_TASKRUN_FLAG (1U << 9)
#endif
#define BLK_URING_FLAGS (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG)

static inline void blk_prep_rw(struct io_uring_sqe *sqe, int write, const struct iovec *iov, unsigned n,
                               unsigned long long offset, int flags)
{
    if (write)
        io_uring_prep_writev2(sqe, 0, iov, n, offset, flags);
    else
        io_uring_prep_readv2(sqe, 0, iov, n, offset, flags);
    sqe->flags |= IOSQE_FIXED_FILE;
}

static inline void blk_prep_sync(struct io_uring_sqe *sqe)
{
    io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    sqe->flags |= IOSQE_FIXED_FILE;
}

static inline void blk_prep_fallocate(struct io_uring_sqe *sqe, int mode, unsigned long long offset,
                                      unsigned long long length)
{
    io_uring_prep_fallocate(sqe, 0, mode, offset, length);
    sqe->flags |= IOSQE_FIXED_FILE;
}

/* Every request of the ring, in flight or not yet begun; the answer to this one has no user data. */
static inline void blk_prep_cancel(struct io_uring_sqe *sqe)
{
    io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, sqe, -1, 0, 0, 0);
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
}

#else

#define BLK_HAS_LIBURING 0
#define BLK_URING_FLAGS 0U

struct iovec;
struct io_uring { int unused; };
struct io_uring_sqe { int unused; };
struct io_uring_cqe { int res; };

static inline int io_uring_queue_init(unsigned n, struct io_uring *ring, unsigned flags) { return -ENOSYS; }
static inline void io_uring_queue_exit(struct io_uring *ring) {}
static inline int io_uring_register_files(struct io_uring *ring, const int *fds, unsigned n) { return -ENOSYS; }
static inline int io_uring_unregister_files(struct io_uring *ring) { return 0; }
static inline int io_uring_register_eventfd(struct io_uring *ring, int fd) { return -ENOSYS; }
static inline int io_uring_cq_eventfd_toggle(struct io_uring *ring, int on) { return 0; }
static inline struct io_uring_sqe *io_uring_get_sqe(struct io_uring *ring) { return 0; }
static inline void io_uring_sqe_set_data(struct io_uring_sqe *sqe, void *data) {}
static inline void *io_uring_cqe_get_data(const struct io_uring_cqe *cqe) { return 0; }
static inline int io_uring_submit(struct io_uring *ring) { return 0; }
static inline unsigned io_uring_sq_ready(const struct io_uring *ring) { return 0; }
static inline unsigned io_uring_cq_ready(const struct io_uring *ring) { return 0; }
static inline unsigned io_uring_peek_batch_cqe(struct io_uring *r, struct io_uring_cqe **c, unsigned n) { return 0; }
static inline void io_uring_cq_advance(struct io_uring *ring, unsigned n) {}
static inline void blk_prep_rw(struct io_uring_sqe *sqe, int write, const struct iovec *iov, unsigned n,
                               unsigned long long offset, int flags) {}
static inline void blk_prep_sync(struct io_uring_sqe *sqe) {}
static inline void blk_prep_fallocate(struct io_uring_sqe *sqe, int mode, unsigned long long offset,
                                      unsigned long long length) {}
static inline void blk_prep_cancel(struct io_uring_sqe *sqe) {}

#endif
#endif
