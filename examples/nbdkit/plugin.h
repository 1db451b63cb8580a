/* What the parts of the plugin share. */
#ifndef CDP_NBDKIT_PLUGIN_H
#define CDP_NBDKIT_PLUGIN_H

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <cdp.h>
#include <stdint.h>

/* Longest write that is one write of the library, bytes; a longer request becomes several. */
#define WRITE_BYTES_MAX (16u << 20)

/* Tells nbdkit why a call of the library failed, and with which errno the client is answered. Returns -1. */
int failed(cdp_status status, const char *what);

/* Where blocks are that may hold data, from an image of the volume. */
int image_extents(const cdp_snapshot *image, uint32_t count, uint64_t offset, uint32_t flags,
                  struct nbdkit_extents *extents);

/* When and how fast a file and its volume are made equal again; zero is the default of everything. */
struct resync {
  uint64_t rate, delay_ns, latency_max_ns;
  cdp_hours hours;
  int has_hours;
};

/* A plain file whose writes are captured by a tap: every function returns 0 or -1 with the error told to nbdkit. */
struct tapped;
struct tapped *tapped_open(cdp_store *store, const char *file, const char *volume, uint32_t source_state,
                           const struct resync *resync);
void tapped_close(struct tapped *tapped);
int64_t tapped_size(const struct tapped *tapped);
int tapped_read(struct tapped *tapped, void *buf, uint32_t count, uint64_t offset);
int tapped_write(struct tapped *tapped, const void *buf, uint32_t count, uint64_t offset, int fua);
int tapped_punch(struct tapped *tapped, uint32_t count, uint64_t offset, int must_be_zero, int fua);
int tapped_flush(struct tapped *tapped);

#endif
