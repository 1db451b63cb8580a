/* A store on one flat device, for a host without a file system: the host gives functions that read, write and sync a region, and the library keeps
 * its extents in slots of it. A file stands for the device; for one that is a file or block device anyway there is cdp_storage_open_flat_file.
 *
 *   flat_device FILE   (new)
 */
#define _XOPEN_SOURCE 700
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { DEVICE = 256 << 20, SLOT = 1 << 20, SEGMENT = 8 << 20, BLOCK = 4096 };

static int file;

static int32_t transfer(int is_write, uint64_t at, void *buf, size_t len) {
  char *bytes = buf;
  while (len > 0) {
    ssize_t moved = is_write ? pwrite(file, bytes, len, (off_t)at) : pread(file, bytes, len, (off_t)at);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return moved < 0 ? -errno : -EIO;
    bytes += moved;
    len -= (size_t)moved;
    at += (uint64_t)moved;
  }
  return 0;
}

static int32_t device_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  return transfer(0, offset, buf, len);
}

static int32_t device_write(void *userdata, uint64_t offset, const void *buf, size_t len) {
  (void)userdata;
  return transfer(1, offset, (void *)(uintptr_t)buf, len);
}

static int32_t device_write_zeroes(void *userdata, uint64_t offset, uint64_t len) {
  static const char zeroes[1 << 16];
  int32_t answer = 0;
  (void)userdata;
  while (len > 0 && answer == 0) {
    size_t piece = len < sizeof zeroes ? (size_t)len : sizeof zeroes;
    answer = transfer(1, offset, (void *)(uintptr_t)zeroes, piece);
    offset += piece;
    len -= piece;
  }
  return answer;
}

/* Everything rests on this one: what was written before is on the medium when it returns. */
static int32_t device_sync(void *userdata) {
  (void)userdata;
  return fdatasync(file) == 0 ? 0 : -errno;
}

static int32_t device_size(void *userdata, uint64_t *bytes_out) {
  (void)userdata;
  *bytes_out = DEVICE;
  return 0;
}

static cdp_storage *storage_on_the_device(int format) {
  cdp_copy *device = NULL;
  cdp_storage *storage = NULL;
  cdp_copy_calls calls;
  cdp_flat_options options;
  CDP_INIT(calls);
  calls.read = device_read;
  calls.write = device_write;
  calls.write_zeroes = device_write_zeroes;
  calls.sync = device_sync;
  calls.size = device_size;
  MUST(cdp_copy_open_custom(&calls, &device));
  CDP_INIT(options);
  options.slot_bytes = SLOT;
  if (format) MUST(cdp_flat_format(device, &options));
  MUST(cdp_storage_open_flat(device, &storage));
  MUST(cdp_copy_close(&device));
  return storage;
}

int main(int argc, char **argv) {
  cdp_storage *storage;
  cdp_store *store = NULL;
  cdp_volume *disk = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_create_options create;
  cdp_open_options options;
  cdp_point point;
  uint64_t damage = 1;
  unsigned char block[BLOCK];

  if (argc != 2 || (file = open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0600)) < 0) {
    fprintf(stderr, "usage: flat_device FILE (new)\n");
    return 2;
  }
  EXPECT(ftruncate(file, DEVICE) == 0);
  storage = storage_on_the_device(1);
  CDP_INIT(options);
  CDP_INIT(create);
  options.storage = storage;
  options.segment_bytes = SEGMENT;
  create.bytes = 64 << 20;
  create.open = &options;
  MUST(cdp_store_create(NULL, &create, &store));
  MUST(cdp_volume_open(store, NULL, &disk));
  for (int number = 0; number < 6000; number++) {
    memset(block, number % 255 + 1, sizeof block);
    MUST(cdp_volume_write(disk, (uint64_t)number % 2000 * BLOCK, block, sizeof block, 0, NULL));
    if (number == 1999) MUST(cdp_bookmark_create(store, "first", NULL, NULL, NULL));
  }
  MUST(cdp_store_close(&store));
  MUST(cdp_storage_close(&storage));

  /* Everything is on the device: open it anew. */
  storage = storage_on_the_device(0);
  options.storage = storage;
  MUST(cdp_store_open(NULL, &options, &store));
  MUST(cdp_volume_open(store, NULL, &disk));
  MUST(cdp_resolve(store, "bookmark:first", &point));
  MUST(cdp_snapshot_open(disk, point.seq, 0, &snapshot));
  for (int number = 0; number < 2000; number++) {
    MUST(cdp_snapshot_read(snapshot, (uint64_t)number * BLOCK, block, sizeof block));
    EXPECT(block[0] == number % 255 + 1);
    MUST(cdp_volume_read(disk, (uint64_t)number * BLOCK, block, sizeof block));
    EXPECT(block[0] == (4000 + number) % 255 + 1);
  }
  MUST(cdp_store_check(store, CDP_CHECK_DEEP, NULL, &damage, NULL, 0));
  EXPECT(damage == 0);
  printf("a store on a flat device: 6000 writes, the state after 2000 of them is there\n");
  MUST(cdp_store_close(&store));
  MUST(cdp_storage_close(&storage));
  close(file);
  return 0;
}
