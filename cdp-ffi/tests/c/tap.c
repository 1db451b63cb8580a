/* Taps: every way to capture, gaps and how they heal, writes in flight, dirty maps, resync and verify against a source. */
#include "check.h"

#include <pthread.h>

enum { DISK = 1 << 20 };

struct disk {
  pthread_mutex_t lock;
  unsigned char bytes[DISK];
  int freed, syncs;
  uint64_t generation;
};

static struct disk disk = {PTHREAD_MUTEX_INITIALIZER, {0}, 0, 0, 0};

static int32_t disk_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  struct disk *of = userdata;
  cdp_status status;
  /* A callback must not call the library, and is told so. */
  uint64_t durable;
  status = cdp_store_flush(NULL, &durable);
  if (status != CDP_ERR_BUSY) return -5;
  pthread_mutex_lock(&of->lock);
  memcpy(buf, of->bytes + offset, len);
  pthread_mutex_unlock(&of->lock);
  return 0;
}
static int32_t disk_sync(void *userdata) {
  ((struct disk *)userdata)->syncs++;
  return 0;
}
static int32_t disk_next_data(void *userdata, uint64_t offset, uint64_t *next_out) {
  const struct disk *of = userdata;
  for (uint64_t at = offset / BLOCK * BLOCK; at < DISK; at += BLOCK)
    if (!is_all(of->bytes + at, BLOCK, 0)) {
      *next_out = at < offset ? offset : at;
      return 0;
    }
  return CDP_END;
}
static int32_t disk_stamp(void *userdata, cdp_source_stamp *stamp_out) {
  memset(stamp_out, 0, sizeof *stamp_out);
  stamp_out->bytes = DISK;
  stamp_out->changed_ns = ((struct disk *)userdata)->generation;
  return 0;
}
static void disk_free(void *userdata) { ((struct disk *)userdata)->freed++; }

static cdp_source source_of(struct disk *of) {
  cdp_source source;
  CDP_INIT(source);
  source.userdata = of;
  source.read = disk_read;
  source.sync = disk_sync;
  source.next_data = disk_next_data;
  source.stamp = disk_stamp;
  source.free_userdata = disk_free;
  return source;
}

static void disk_write(uint64_t offset, int byte, size_t len) {
  pthread_mutex_lock(&disk.lock);
  memset(disk.bytes + offset, byte, len);
  disk.generation++;
  pthread_mutex_unlock(&disk.lock);
}

/* Steps until the volume is captured whole. */
static void settle(cdp_store *store, cdp_tap *tap) {
  cdp_tap_stats stats;
  CDP_INIT(stats);
  for (int tries = 0; tries < 100000; tries++) {
    cdp_status status = cdp_store_step(store, 0);
    CHECK(status == CDP_OK || status == CDP_END);
    OK(cdp_tap_stats_get(tap, &stats));
    if (stats.is_whole && stats.dirty_bytes == 0 && stats.pool_bytes == 0) return;
  }
  CHECK(!"the tap heals");
}

static void same_as_disk(cdp_store *store) {
  static unsigned char found[DISK];
  cdp_volume *volume = NULL;
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_read(volume, 0, found, DISK));
  for (size_t at = 0; at < DISK; at += BLOCK)
    if (memcmp(found + at, disk.bytes + at, BLOCK) != 0) {
      fprintf(stderr, "block %zu differs\n", at / BLOCK);
      exit(1);
    }
  OK(cdp_volume_close(&volume));
}

static void capture(cdp_store *store, cdp_tap *tap) {
  static unsigned char block[2 * BLOCK];
  cdp_iovec iov[2];
  uint32_t outcome = 0;
  fill(block, sizeof block, 5);
  disk_write(0, 5, BLOCK);
  OK(cdp_tap_capture(tap, 0, block, BLOCK, 0, &outcome));
  CHECK(outcome == CDP_CAPTURED_WHOLE);
  iov[0].base = block;
  iov[0].len = BLOCK;
  iov[1].base = block;
  iov[1].len = BLOCK;
  disk_write(BLOCK, 5, 2 * BLOCK);
  OK(cdp_tap_capturev(tap, BLOCK, iov, 2, 0, &outcome));
  CHECK(outcome == CDP_CAPTURED_WHOLE);
  disk_write(BLOCK, 0, BLOCK);
  OK(cdp_tap_capture_zeroes(tap, BLOCK, BLOCK, 0, NULL));
  disk_write(2 * BLOCK, 0, BLOCK);
  OK(cdp_tap_capture_discard(tap, 2 * BLOCK, BLOCK, 0, NULL));
  settle(store, tap);
  same_as_disk(store);
}

static int count(cdp_extent_iter **iter) {
  cdp_extent extent;
  int extents = 0;
  while (cdp_extent_iter_next(*iter, &extent) == CDP_OK) extents++;
  OK(cdp_extent_iter_close(iter));
  return extents;
}

/* What is marked opens a gap, is listed, goes to a peer as bytes and back, and is copied from the source. */
static void marks(cdp_store *store, cdp_tap *tap) {
  static unsigned char map[1 << 16];
  cdp_uuid device = {{7}}, other = {{8}};
  cdp_extent_iter *iter = NULL;
  cdp_extent extents[2] = {{8 * BLOCK, BLOCK}, {20 * BLOCK + 1, 10}};
  cdp_tap_stats stats;
  cdp_event event;
  size_t len = 0;
  int opened = 0, closed = 0;
  CDP_INIT(stats);
  CDP_INIT(event);
  disk_write(8 * BLOCK, 6, BLOCK);
  OK(cdp_tap_mark(tap, 8 * BLOCK, BLOCK, CDP_GAP_HOST));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_tap_mark(tap, 8 * BLOCK, BLOCK, 1));
  OK(cdp_tap_mark_extents(tap, extents, 2, CDP_GAP_OVERLAP));
  OK(cdp_tap_dirty_extents(tap, &iter));
  CHECK(count(&iter) == 2);
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, cdp_tap_dirty_map_get(tap, device, 3, NULL, 0, &len));
  CHECK(len > 0 && len <= sizeof map);
  OK(cdp_tap_dirty_map_get(tap, device, 3, map, sizeof map, &len));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_tap_mark_map(tap, map, len, other, 3, CDP_GAP_HOST));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_tap_mark_map(tap, map, 10, device, 3, CDP_GAP_HOST));
  settle(store, tap);
  OK(cdp_tap_dirty_extents(tap, &iter));
  CHECK(count(&iter) == 0);
  OK(cdp_tap_mark_map(tap, map, len, device, 3, CDP_GAP_HOST));
  OK(cdp_tap_dirty_extents(tap, &iter));
  CHECK(count(&iter) == 2);
  OK(cdp_tap_suspend(tap));
  OK(cdp_tap_stats_get(tap, &stats));
  CHECK(stats.mode == CDP_TAP_MODE_BITMAP && stats.is_whole == 0);
  OK(cdp_tap_resume(tap));
  settle(store, tap);
  same_as_disk(store);
  while (cdp_event_next(store, &event, NULL) == CDP_OK) {
    opened += event.kind == CDP_EVENT_GAP_OPENED && strcmp(event.volume, "disk") == 0;
    closed += event.kind == CDP_EVENT_GAP_CLOSED;
  }
  CHECK(opened > 0 && opened == closed);
}

/* Writes in flight: one at a time whole, overlapping ones marked, cancelled ones nothing. */
static void in_flight(cdp_store *store, cdp_tap *tap) {
  static unsigned char block[BLOCK];
  cdp_in_flight *first = NULL, *second = NULL, *copy;
  uint32_t outcome = 0;
  fill(block, BLOCK, 9);
  OK(cdp_tap_begin(tap, 0, BLOCK, &first));
  disk_write(0, 9, BLOCK);
  OK(cdp_in_flight_end(&first, CDP_WRITTEN_DATA, block, BLOCK, 0, &outcome));
  CHECK(outcome == CDP_CAPTURED_WHOLE && first == NULL);
  OK(cdp_tap_begin(tap, 0, BLOCK, &first));
  OK(cdp_tap_begin(tap, 0, 2 * BLOCK, &second));
  disk_write(0, 10, 2 * BLOCK);
  OK(cdp_in_flight_end(&first, CDP_WRITTEN_ZEROES, NULL, 0, 0, &outcome));
  CHECK(outcome == CDP_CAPTURED_MARKED);
  OK(cdp_in_flight_end(&second, CDP_WRITTEN_FAILED, NULL, 0, 0, &outcome));
  CHECK(outcome == CDP_CAPTURED_MARKED);
  OK(cdp_tap_begin(tap, 4 * BLOCK, BLOCK, &first));
  copy = first;
  OK(cdp_in_flight_cancel(&first));
  EXPECT(CDP_ERR_CLOSED, cdp_in_flight_end(&copy, CDP_WRITTEN_DATA, block, BLOCK, 0, NULL));
  OK(cdp_tap_begin(tap, 4 * BLOCK, BLOCK, &first));
  disk_write(4 * BLOCK, 0, BLOCK);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_in_flight_end(&first, CDP_WRITTEN_DISCARD, block, BLOCK, 0, NULL));
  CHECK(first == NULL);
  settle(store, tap);
  same_as_disk(store);
}

/* What a write through the tap does to the disk, and what it answers. */
struct through {
  uint64_t offset;
  unsigned char seed;
  int32_t answer;
  int calls;
  cdp_tap *tap;
};

static int32_t write_disk(void *userdata) {
  struct through *through = userdata;
  ++through->calls;
  if (through->tap != NULL) EXPECT(CDP_ERR_BUSY, cdp_tap_close(&through->tap));
  if (through->answer != CDP_END) disk_write(through->offset, through->seed, BLOCK);
  return through->answer;
}

/* Writes with the tap around them: whole, failed, not made, overlapping one that was begun, and calls that are wrong and write nothing. */
static void write_through(cdp_store *store, cdp_tap *tap) {
  static unsigned char block[BLOCK];
  struct through through = {8 * BLOCK, 11, 0, 0, tap};
  cdp_in_flight *begun = NULL;
  uint32_t outcome = 0;
  int32_t answer = 5;
  fill(block, BLOCK, 11);
  OK(cdp_tap_write_through(tap, 8 * BLOCK, BLOCK, CDP_WRITTEN_DATA, block, write_disk, &through, &answer, &outcome));
  CHECK(outcome == CDP_CAPTURED_WHOLE && answer == 0 && through.calls == 1);
  through.tap = NULL;
  settle(store, tap);
  same_as_disk(store);
  through.answer = CDP_END;
  outcome = 7;
  OK(cdp_tap_write_through(tap, 8 * BLOCK, BLOCK, CDP_WRITTEN_DISCARD, NULL, write_disk, &through, &answer, &outcome));
  CHECK(outcome == 7 && answer == CDP_END && through.calls == 2);
  settle(store, tap);
  same_as_disk(store);
  through.answer = -28;
  through.seed = 12;
  OK(cdp_tap_write_through(tap, 8 * BLOCK, BLOCK, CDP_WRITTEN_DATA, block, write_disk, &through, &answer, &outcome));
  CHECK(outcome == CDP_CAPTURED_MARKED && answer == -28 && through.calls == 3);
  through.answer = 0;
  OK(cdp_tap_begin(tap, 8 * BLOCK, 2 * BLOCK, &begun));
  OK(cdp_tap_write_through(tap, 8 * BLOCK, BLOCK, CDP_WRITTEN_DATA, block, write_disk, &through, NULL, &outcome));
  CHECK(outcome == CDP_CAPTURED_MARKED && through.calls == 4);
  OK(cdp_in_flight_end(&begun, CDP_WRITTEN_FAILED, NULL, 0, 0, NULL));
  settle(store, tap);
  same_as_disk(store);
#define WRONG(offset, len, kind, buf, write) \
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_tap_write_through(tap, offset, len, kind, buf, write, &through, &answer, &outcome))
  WRONG(0, BLOCK, CDP_WRITTEN_DATA, NULL, write_disk);
  WRONG(0, BLOCK, CDP_WRITTEN_DATA, block, NULL);
  WRONG(0, BLOCK, CDP_WRITTEN_ZEROES, block, write_disk);
  WRONG(0, BLOCK, CDP_WRITTEN_FAILED, NULL, write_disk);
  WRONG(0, BLOCK, 99, NULL, write_disk);
  WRONG(0, (16 << 20) + BLOCK, CDP_WRITTEN_DATA, block, write_disk);
  EXPECT(CDP_ERR_UNALIGNED, cdp_tap_write_through(tap, 1, BLOCK, CDP_WRITTEN_DATA, block, write_disk, &through, NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT,
         cdp_tap_write_through(NULL, 0, BLOCK, CDP_WRITTEN_DATA, block, write_disk, &through, NULL, NULL));
  CHECK(through.calls == 4);
}

static int32_t stop(void *userdata, uint64_t done, uint64_t total) {
  ++*(int *)userdata;
  return done < total ? 1 : 0;
}

/* Without a tap: what differs is found, taken over, and found no more. */
static void compared(cdp_store *store) {
  cdp_source source = source_of(&disk);
  cdp_resync_report report;
  cdp_verify_report verified;
  cdp_verify_options repair;
  cdp_resync_options options;
  cdp_watch watch;
  cdp_extent extents[1];
  uint64_t damage;
  int told = 0;
  CDP_INIT(report);
  CDP_INIT(verified);
  CDP_INIT(repair);
  repair.flags = CDP_VERIFY_REPAIR;
  CDP_INIT(options);
  CDP_INIT(watch);
  watch.userdata = &told;
  watch.progress = stop;
  disk_write(40 * BLOCK, 3, BLOCK);
  disk_write(60 * BLOCK, 3, BLOCK);
  OK(cdp_verify(store, NULL, &source, NULL, NULL, extents, 1, &verified));
  CHECK(verified.bytes_different == 2 * BLOCK && verified.extents_count == 2 && extents[0].offset == 40 * BLOCK);
  CHECK(verified.flags == CDP_VERIFY_COMPLETE);
  OK(cdp_resync(store, "disk", &source, &options, NULL, &report));
  CHECK(report.mode == CDP_RESYNC_DIGEST && report.bytes_left == 0 && report.bytes_different == 2 * BLOCK);
  same_as_disk(store);
  disk_write(60 * BLOCK, 4, BLOCK);
  OK(cdp_verify(store, NULL, &source, &repair, NULL, NULL, 0, &verified));
  CHECK(verified.flags == (CDP_VERIFY_COMPLETE | CDP_VERIFY_REPAIRED));
  same_as_disk(store);
  OK(cdp_verify(store, NULL, &source, NULL, &watch, NULL, 0, &verified));
  CHECK(told > 0);
  OK(cdp_store_check(store, 0, &watch, &damage, NULL, 0));
  CHECK(damage == 0);
  options.mode = CDP_RESYNC_QUICK;
  OK(cdp_resync(store, NULL, &source, &options, NULL, &report));
  same_as_disk(store);
  options.mode = 99;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_resync(store, NULL, &source, &options, NULL, &report));
}

/* A volume that begins with the content of the disk, as one seq; and one that is ended early and is not there. */
static void imported(cdp_store *store) {
  static unsigned char found[DISK];
  cdp_source source = source_of(&disk);
  cdp_volume *volume = NULL;
  cdp_volume_info info;
  cdp_watch watch;
  cdp_point before, after;
  int told = 0, freed = disk.freed;
  CDP_INIT(info);
  CDP_INIT(watch);
  OK(cdp_resolve(store, "latest", &before));
  OK(cdp_volume_import(store, "copy", DISK, &source, 0, NULL, &volume));
  CHECK(disk.freed == freed + 1);
  OK(cdp_resolve(store, "latest", &after));
  CHECK(after.seq == before.seq + 1);
  OK(cdp_volume_read(volume, 0, found, DISK));
  CHECK(memcmp(found, disk.bytes, DISK) == 0);
  OK(cdp_volume_info_get(volume, &info));
  CHECK(info.exists_from == after.seq && info.bytes == DISK);
  OK(cdp_volume_close(&volume));
  EXPECT(CDP_ERR_EXISTS, cdp_volume_import(store, "copy", DISK, &source, 0, NULL, &volume));
  watch.userdata = &told;
  watch.progress = stop;
  EXPECT(CDP_ERR_IO, cdp_volume_import(store, "ended", 4 * DISK, &source, 0, &watch, &volume));
  CHECK(volume == NULL && told > 0 && cdp_last_error_errno() == 125);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_volume_open(store, "ended", &volume));
}

/* A store whose first volume begins with the content of the disk; and one that is ended early and is none. */
static void created_with_import(void) {
  static unsigned char found[DISK];
  cdp_source source = source_of(&disk);
  cdp_storage *storage = NULL, *other = NULL;
  cdp_create_options options;
  cdp_open_options open;
  cdp_store *store = NULL;
  cdp_volume *volume = NULL;
  cdp_volume_stats stats;
  cdp_watch watch;
  cdp_point latest;
  int told = 0, freed = disk.freed;
  CDP_INIT(options);
  CDP_INIT(open);
  CDP_INIT(stats);
  CDP_INIT(watch);
  OK(cdp_storage_open_memory(0, &storage));
  OK(cdp_storage_open_memory(0, &other));
  open.storage = storage;
  options.open = &open;
  options.bytes = DISK;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create_with_import(NULL, &options, NULL, 0, NULL, &store));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create_with_import(NULL, NULL, &source, 0, NULL, &store));
  CHECK(store == NULL && disk.freed == freed + 1);
  OK(cdp_store_create_with_import(NULL, &options, &source, 0, NULL, &store));
  CHECK(disk.freed == freed + 2);
  OK(cdp_resolve(store, "latest", &latest));
  CHECK(latest.seq == 1);
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_read(volume, 0, found, DISK));
  CHECK(memcmp(found, disk.bytes, DISK) == 0);
  OK(cdp_volume_stats_get(volume, &stats));
  CHECK(stats.lag_bytes == 0 && stats.lag_ns == 0);
  OK(cdp_volume_close(&volume));
  OK(cdp_store_close(&store));
  watch.userdata = &told;
  watch.progress = stop;
  open.storage = other;
  options.bytes = 4 * DISK;
  EXPECT(CDP_ERR_IO, cdp_store_create_with_import(NULL, &options, &source, 0, &watch, &store));
  CHECK(store == NULL && told > 0 && cdp_last_error_errno() == 125);
  OK(cdp_storage_close(&storage));
  OK(cdp_storage_close(&other));
}

int main(int argc, char **argv) {
  char path[512];
  cdp_store *store = new_store(in_directory(path, sizeof path, argc, argv, "store"), DISK);
  cdp_source source = source_of(&disk);
  cdp_tap_options options;
  cdp_resync_report report;
  cdp_tap *tap = NULL, *other = NULL;
  int freed;
  CDP_INIT(options);
  CDP_INIT(report);
  options.source_state = CDP_SOURCE_EQUAL;
  options.granularity = BLOCK;
  options.pool_frames = 8;
  OK(cdp_tap_open(store, "disk", &source, &options, &tap));
  freed = disk.freed;
  EXPECT(CDP_ERR_EXISTS, cdp_tap_open(store, NULL, &source, &options, &other));
  CHECK(other == NULL && disk.freed == freed + 1);
  capture(store, tap);
  marks(store, tap);
  in_flight(store, tap);
  write_through(store, tap);
  OK(cdp_tap_resync(tap, NULL, NULL, &report));
  CHECK(report.bytes_compared >= DISK && report.bytes_different == 0);
  OK(cdp_tap_detach(tap));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_tap_mark(tap, 0, BLOCK, CDP_GAP_HOST));
  OK(cdp_tap_close(&tap));
  compared(store);
  imported(store);
  created_with_import();
  /* With an activity log every write is begun; one that was not is an event. */
  options.flags = CDP_TAP_ACTIVITY_LOG;
  options.log_regions_max = 8;
  options.source_state = CDP_SOURCE_AS_RECORDED;
  OK(cdp_tap_open(store, NULL, &source, &options, &tap));
  in_flight(store, tap);
  write_through(store, tap);
  CHECK(disk.syncs > 0);
  freed = disk.freed;
  OK(cdp_tap_close(&tap));
  OK(cdp_store_close(&store));
  CHECK(disk.freed == freed + 1);
  return 0;
}
