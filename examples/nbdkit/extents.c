/* Where an image may hold data: holes are found at once, however long; data is followed block by block. */
#include "plugin.h"

/* Blocks of data that one answer follows: a longer run is asked for again. */
enum { BLOCK = 4096, BLOCKS_AT_ONCE = 4096 };

static int add(struct nbdkit_extents *extents, uint64_t from, uint64_t to, uint32_t type) {
  return to > from ? nbdkit_add_extent(extents, from, to - from, type) : 0;
}

int image_extents(const cdp_snapshot *image, uint32_t count, uint64_t offset, uint32_t flags,
                  struct nbdkit_extents *extents) {
  uint64_t end = offset + count, at = offset;
  int one = (flags & NBDKIT_FLAG_REQ_ONE) != 0, told = 0;
  for (int blocks = 0; at < end && blocks < BLOCKS_AT_ONCE && !(one && told > 1);) {
    uint64_t data = end, data_end;
    cdp_status status = cdp_snapshot_next_data(image, at, &data);
    if (status < 0) return failed(status, "extents");
    if (status == CDP_END || data > end) data = end;
    if (data > at) told++;
    if (add(extents, at, data, NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) < 0) return -1;
    if (data >= end) return 0;
    /* The run goes on for as long as the next block holds data too. */
    for (data_end = data; data_end < end && blocks < BLOCKS_AT_ONCE; blocks++) {
      uint64_t next = end, from = data_end / BLOCK * BLOCK + BLOCK;
      data_end = from < end ? from : end;
      if (data_end >= end) break;
      status = cdp_snapshot_next_data(image, from, &next);
      if (status < 0) return failed(status, "extents");
      if (status == CDP_END || next > from) break;
    }
    told++;
    if (add(extents, data, data_end, 0) < 0) return -1;
    at = data_end;
  }
  return 0;
}
