/* A store on the program's own storage: fixed slots on one flat file, as on a raw device without a file system.
 *
 *   custom_storage FILE   (new)
 *
 * Layout of the file: a table of slots in the first block, then the slots, all of one size. An extent is a slot; its number and its size
 * stand in the table, which is written anew as a whole. A block is written whole or not at all on the devices that this is for.
 */
#define _XOPEN_SOURCE 700
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 128, SLOT_BYTES = 4 << 20, TABLE_BYTES = 4096 };

/* extent + 1, so that 0 is a free slot. */
struct slot {
  uint64_t extent_plus_one, bytes;
};

struct flat {
  int file, frees;
  pthread_mutex_t lock;
  struct slot slots[SLOTS];
  /* Handles that are open on a slot; one that was removed is free when they are closed. */
  int open[SLOTS], removed[SLOTS];
};

static int32_t transfer(int file, int is_write, uint64_t at, void *buf, size_t len) {
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

/* With the lock held. A slot that was removed is not in the table any more, even while it is open. */
static int32_t write_table(struct flat *flat) {
  static char block[TABLE_BYTES];
  struct slot table[SLOTS];
  memcpy(table, flat->slots, sizeof table);
  for (int at = 0; at < SLOTS; at++)
    if (flat->removed[at]) memset(&table[at], 0, sizeof table[at]);
  memset(block, 0, sizeof block);
  memcpy(block, table, sizeof table);
  return transfer(flat->file, 1, 0, block, sizeof block);
}

static int find(const struct flat *flat, uint64_t extent) {
  for (int at = 0; at < SLOTS; at++)
    if (flat->slots[at].extent_plus_one == extent + 1 && !flat->removed[at]) return at;
  return -1;
}

static uint64_t begin_of(int slot) { return TABLE_BYTES + (uint64_t)slot * SLOT_BYTES; }

static int32_t zero(struct flat *flat, int slot, uint64_t from, uint64_t to) {
  static char zeroes[1 << 16];
  int32_t answer = 0;
  while (from < to && answer == 0) {
    size_t len = to - from < sizeof zeroes ? (size_t)(to - from) : sizeof zeroes;
    answer = transfer(flat->file, 1, begin_of(slot) + from, zeroes, len);
    from += len;
  }
  return answer;
}

/* Gives a slot another size; what is new reads as zeroes. With the lock held. */
static int32_t resize(struct flat *flat, int slot, uint64_t bytes) {
  uint64_t before = flat->slots[slot].bytes;
  int32_t answer;
  if (bytes > SLOT_BYTES) return -ENOSPC;
  if (bytes > before && (answer = zero(flat, slot, before, bytes)) != 0) return answer;
  flat->slots[slot].bytes = bytes;
  return write_table(flat);
}

static int32_t open_slot(struct flat *flat, int slot, void **handle_out) {
  flat->open[slot]++;
  *handle_out = &flat->slots[slot];
  return 0;
}

static int slot_of(struct flat *flat, void *handle) { return (int)((struct slot *)handle - flat->slots); }

static int32_t create_extent(void *userdata, uint64_t extent, uint64_t bytes, void **handle_out) {
  struct flat *flat = userdata;
  int32_t answer = -ENOSPC;
  pthread_mutex_lock(&flat->lock);
  if (find(flat, extent) >= 0) answer = -EEXIST;
  else
    for (int at = 0; at < SLOTS && bytes <= SLOT_BYTES; at++)
      if (flat->slots[at].extent_plus_one == 0) {
        if ((answer = zero(flat, at, 0, bytes)) != 0) break;
        flat->slots[at].extent_plus_one = extent + 1;
        flat->slots[at].bytes = bytes;
        if ((answer = write_table(flat)) == 0) answer = open_slot(flat, at, handle_out);
        else memset(&flat->slots[at], 0, sizeof flat->slots[at]);
        break;
      }
  pthread_mutex_unlock(&flat->lock);
  return answer;
}

static int32_t open_extent(void *userdata, uint64_t extent, void **handle_out) {
  struct flat *flat = userdata;
  pthread_mutex_lock(&flat->lock);
  int slot = find(flat, extent);
  int32_t answer = slot < 0 ? -ENOENT : open_slot(flat, slot, handle_out);
  pthread_mutex_unlock(&flat->lock);
  return answer;
}

static void free_when_unused(struct flat *flat, int slot) {
  if (flat->removed[slot] && flat->open[slot] == 0) {
    memset(&flat->slots[slot], 0, sizeof flat->slots[slot]);
    flat->removed[slot] = 0;
  }
}

static void close_extent(void *userdata, void *handle) {
  struct flat *flat = userdata;
  pthread_mutex_lock(&flat->lock);
  int slot = slot_of(flat, handle);
  flat->open[slot]--;
  free_when_unused(flat, slot);
  pthread_mutex_unlock(&flat->lock);
}

static int32_t list_extents(void *userdata, uint64_t *extents_out, size_t capacity, size_t *count_out) {
  struct flat *flat = userdata;
  size_t count = 0;
  pthread_mutex_lock(&flat->lock);
  for (int at = 0; at < SLOTS; at++)
    if (flat->slots[at].extent_plus_one != 0 && !flat->removed[at]) {
      if (count < capacity) extents_out[count] = flat->slots[at].extent_plus_one - 1;
      count++;
    }
  pthread_mutex_unlock(&flat->lock);
  *count_out = count;
  return 0;
}

static int32_t remove_extent(void *userdata, uint64_t extent) {
  struct flat *flat = userdata;
  int32_t answer = -ENOENT;
  pthread_mutex_lock(&flat->lock);
  int slot = find(flat, extent);
  if (slot >= 0) {
    flat->removed[slot] = 1;
    answer = write_table(flat);
    free_when_unused(flat, slot);
  }
  pthread_mutex_unlock(&flat->lock);
  return answer;
}

static int32_t read_extent(void *userdata, void *handle, uint64_t offset, void *buf, size_t len) {
  struct flat *flat = userdata;
  int slot = slot_of(flat, handle);
  pthread_mutex_lock(&flat->lock);
  uint64_t bytes = flat->slots[slot].bytes;
  pthread_mutex_unlock(&flat->lock);
  if (offset > bytes || len > bytes - offset) return -EIO;
  return transfer(flat->file, 0, begin_of(slot) + offset, buf, len);
}

static int32_t write_extent(void *userdata, void *handle, uint64_t offset, const void *buf, size_t len) {
  struct flat *flat = userdata;
  int slot = slot_of(flat, handle);
  int32_t answer = 0;
  pthread_mutex_lock(&flat->lock);
  if (offset + len > flat->slots[slot].bytes) answer = resize(flat, slot, offset + len);
  pthread_mutex_unlock(&flat->lock);
  return answer != 0 ? answer : transfer(flat->file, 1, begin_of(slot) + offset, (void *)(uintptr_t)buf, len);
}

static int32_t sync_all(void *userdata) {
  return fdatasync(((struct flat *)userdata)->file) == 0 ? 0 : -errno;
}
static int32_t sync_extent(void *userdata, void *handle) {
  (void)handle;
  return sync_all(userdata);
}
static int32_t size_of(void *userdata, void *handle, uint64_t *bytes_out) {
  struct flat *flat = userdata;
  pthread_mutex_lock(&flat->lock);
  *bytes_out = ((struct slot *)handle)->bytes;
  pthread_mutex_unlock(&flat->lock);
  return 0;
}
static int32_t set_size(void *userdata, void *handle, uint64_t bytes) {
  struct flat *flat = userdata;
  pthread_mutex_lock(&flat->lock);
  int32_t answer = resize(flat, slot_of(flat, handle), bytes);
  pthread_mutex_unlock(&flat->lock);
  return answer;
}
static void handed_back(void *userdata) { ((struct flat *)userdata)->frees++; }

/* Opens the file, and takes over the table that is in it. */
static void open_flat(struct flat *flat, const char *path, int flags) {
  memset(flat, 0, sizeof *flat);
  pthread_mutex_init(&flat->lock, NULL);
  flat->file = open(path, O_RDWR | flags, 0600);
  EXPECT(flat->file >= 0 && ftruncate(flat->file, TABLE_BYTES + (off_t)SLOTS * SLOT_BYTES) == 0);
  EXPECT(transfer(flat->file, 0, 0, flat->slots, sizeof flat->slots) == 0);
}

static cdp_storage *storage_on(struct flat *flat) {
  cdp_storage *storage = NULL;
  cdp_storage_calls calls;
  CDP_INIT(calls);
  calls.userdata = flat;
  calls.create = create_extent;
  calls.open = open_extent;
  calls.close = close_extent;
  calls.list = list_extents;
  calls.remove = remove_extent;
  calls.sync_names = sync_all;
  calls.read = read_extent;
  calls.write = write_extent;
  calls.sync = sync_extent;
  calls.size = size_of;
  calls.set_size = set_size;
  calls.free_userdata = handed_back;
  MUST(cdp_storage_open_custom(&calls, &storage));
  return storage;
}

static struct flat flat;

int main(int argc, char **argv) {
  cdp_storage *storage;
  cdp_store *store = NULL;
  cdp_volume *disk = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_open_options open_options;
  cdp_create_options create;
  cdp_point point;
  uint64_t damage = 1;
  unsigned char block[4096];

  if (argc != 2) {
    fprintf(stderr, "usage: custom_storage FILE (new)\n");
    return 2;
  }
  open_flat(&flat, argv[1], O_CREAT | O_EXCL);
  storage = storage_on(&flat);
  CDP_INIT(open_options);
  CDP_INIT(create);
  open_options.storage = storage;
  open_options.segment_bytes = SLOT_BYTES;
  create.bytes = 64 << 20;
  create.open = &open_options;
  MUST(cdp_store_create(NULL, &create, &store));
  MUST(cdp_volume_open(store, NULL, &disk));
  for (int number = 0; number < 3000; number++) {
    memset(block, number % 255 + 1, sizeof block);
    MUST(cdp_volume_write(disk, (uint64_t)number % 1000 * 4096, block, sizeof block, 0, NULL));
    if (number == 999) MUST(cdp_bookmark_create(store, "first-thousand", NULL, NULL, NULL));
  }
  MUST(cdp_store_close(&store));
  MUST(cdp_storage_close(&storage));
  EXPECT(flat.frees == 1);
  close(flat.file);

  /* Everything is in the file: open it anew. */
  open_flat(&flat, argv[1], 0);
  storage = storage_on(&flat);
  open_options.storage = storage;
  MUST(cdp_store_open(NULL, &open_options, &store));
  MUST(cdp_volume_open(store, NULL, &disk));
  MUST(cdp_resolve(store, "bookmark:first-thousand", &point));
  MUST(cdp_snapshot_open(disk, point.seq, 0, &snapshot));
  for (int number = 0; number < 1000; number++) {
    MUST(cdp_snapshot_read(snapshot, (uint64_t)number * 4096, block, sizeof block));
    EXPECT(block[0] == number % 255 + 1);
    MUST(cdp_volume_read(disk, (uint64_t)number * 4096, block, sizeof block));
    EXPECT(block[0] == (2000 + number) % 255 + 1);
  }
  MUST(cdp_store_check(store, CDP_CHECK_DEEP, NULL, &damage, NULL, 0));
  EXPECT(damage == 0);
  printf("a store on a flat file: 3000 writes, the state after 1000 of them is there\n");
  MUST(cdp_store_close(&store));
  MUST(cdp_storage_close(&storage));
  close(flat.file);
  return 0;
}
