/* What a host can do wrong: each is answered with an error, and everything goes on afterwards. */
#include "check.h"

#include <pthread.h>

enum { DISK = 1 << 20 };

/* NULL, a handle of another kind, a number that is none, one that was closed. */
static void handles(cdp_store *store, cdp_volume *volume) {
  static unsigned char block[BLOCK];
  cdp_volume *copy = NULL, *twice = NULL;
  cdp_store *wrong = NULL;
  uint64_t durable = 77;
  OK(cdp_volume_open(store, NULL, &copy));
  twice = copy;
  OK(cdp_volume_close(&copy));
  CHECK(copy == NULL);
  OK(cdp_volume_close(&copy));
  EXPECT(CDP_ERR_CLOSED, cdp_volume_read(twice, 0, block, BLOCK));
  EXPECT(CDP_ERR_CLOSED, cdp_volume_close(&twice));
  CHECK(twice == NULL);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_close(NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_read(NULL, 0, block, BLOCK));
  memcpy(&copy, &store, sizeof copy);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_read(copy, 0, block, BLOCK));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_close(&copy));
  CHECK(copy != NULL);
  memcpy(&wrong, &volume, sizeof wrong);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_flush(wrong, &durable));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_close(&wrong));
  for (uintptr_t made_up = 1; made_up != 0; made_up <<= 3) {
    copy = (cdp_volume *)(made_up | 1);
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_read(copy, 0, block, BLOCK));
    copy = (cdp_volume *)(void *)(block + made_up % 8);
    CHECK(cdp_volume_read(copy, 0, block, BLOCK) < 0);
  }
  CHECK(durable == 77);
}

static void ranges(cdp_volume *volume) {
  static unsigned char block[2 * BLOCK];
  const uint64_t far = UINT64_MAX - 511;
  cdp_iovec iov[2];
  uint64_t seq = 77;
  EXPECT(CDP_ERR_UNALIGNED, cdp_volume_write(volume, 1, block, BLOCK, 0, &seq));
  EXPECT(CDP_ERR_UNALIGNED, cdp_volume_write(volume, 0, block, 100, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_write(volume, 0, block, 0, 0, &seq));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_volume_write(volume, DISK, block, BLOCK, 0, &seq));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_volume_write(volume, far, block, BLOCK, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_write(volume, 0, NULL, BLOCK, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_write(volume, 0, block, SIZE_MAX - 511, 0, &seq));
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_volume_write(volume, 0, block, BLOCK, 1u << 31, &seq));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_volume_write_zeroes(volume, 512, far, 0, &seq));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_volume_discard(volume, far, far, 0, &seq));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_volume_read(volume, DISK - BLOCK, block, 2 * BLOCK));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_read(volume, 0, NULL, BLOCK));
  iov[0].base = block;
  iov[0].len = BLOCK;
  iov[1].base = NULL;
  iov[1].len = BLOCK;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_writev(volume, 0, iov, 2, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_writev(volume, 0, iov, 1025, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_writev(volume, 0, NULL, 1, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_writev(volume, 0, NULL, 0, 0, &seq));
  EXPECT(CDP_ERR_INVALID_ARGUMENT,
         cdp_volume_write(volume, 0, block, BLOCK, 0, (uint64_t *)(void *)((char *)&seq + 1)));
  CHECK(seq == 77);
}

/* Structs of an older and of a newer header, and of none. */
static void structs(cdp_store *store) {
  struct {
    cdp_bookmark_options known;
    uint64_t newer;
  } options;
  struct {
    cdp_store_info known;
    uint64_t newer;
  } info;
  memset(&options, 0, sizeof options);
  options.known.struct_size = sizeof options;
  OK(cdp_bookmark_create(store, "newer", &options.known, NULL, NULL));
  options.newer = 1;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_bookmark_create(store, "newer-still", &options.known, NULL, NULL));
  options.known.struct_size = 0;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(store, "none", &options.known, NULL, NULL));
  options.known.struct_size = UINT32_MAX;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(store, "none", &options.known, NULL, NULL));
  CDP_INIT(options.known);
  options.known.flags = 1u << 30;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_bookmark_create(store, "none", &options.known, NULL, NULL));
  CDP_INIT(options.known);
  options.known.kind = CDP_BOOKMARK_SYSTEM;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(store, "none", &options.known, NULL, NULL));
  CDP_INIT(options.known);
  options.known.reserved = 1;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_bookmark_create(store, "none", &options.known, NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(store, "with space", NULL, NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(store, "\xff\xfe", NULL, NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(store, NULL, NULL, NULL, NULL));
  memset(&info, 0xee, sizeof info);
  info.known.struct_size = sizeof info;
  OK(cdp_store_info_get(store, &info.known));
  CHECK(info.known.struct_size == sizeof info && info.known.volumes == 1 && info.newer == 0);
  info.known.struct_size = 3;
  info.known.volumes = 99;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_info_get(store, &info.known));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_info_get(store, NULL));
  CHECK(info.known.volumes == 99);
}

/* After a failure a handle output is NULL, whatever it was before and whatever failed. */
static void outputs(cdp_store *store, cdp_volume *volume) {
  cdp_volume *other;
  cdp_store *opened;
  cdp_storage *storage;
  cdp_snapshot *snapshot;
  cdp_queue *queue;
  cdp_tap *tap;
  cdp_restore *restore;
  cdp_bookmark_iter *bookmarks;
  cdp_extent_iter *extents;
  cdp_runner *runner;
  cdp_timeline *timeline;
  cdp_in_flight *in_flight;
  cdp_job *job;
  cdp_dirty_map *map;
  cdp_dirty_run *run;
  cdp_map_file *file;
  cdp_map_write *write;
  cdp_retention_plan *plan;
  cdp_history_size *size;
  cdp_map_file_options map_options;
  cdp_extent extent = {7, 7};
  cdp_create_options create;
  cdp_open_options open;
  cdp_storage_calls calls;
  cdp_queue_options queue_options;
  cdp_source source;
  cdp_target target;
  memset(&create, 0, sizeof create);
  memset(&open, 0, sizeof open);
  memset(&calls, 0, sizeof calls);
  memset(&queue_options, 0, sizeof queue_options);
  memset(&source, 0, sizeof source);
  memset(&target, 0, sizeof target);
  memset(&map_options, 0, sizeof map_options);
#define NULLED(type, variable, call)          \
  do {                                        \
    variable = (type *)(uintptr_t)1;          \
    CHECK((call) < 0 && (variable) == NULL);  \
  } while (0)
  NULLED(cdp_store, opened, cdp_store_create("x", &create, &opened));
  NULLED(cdp_store, opened, cdp_store_open("x", &open, &opened));
  NULLED(cdp_storage, storage, cdp_storage_open_custom(&calls, &storage));
  NULLED(cdp_storage, storage, cdp_storage_open_directory(NULL, 0, &storage));
  NULLED(cdp_volume, other, cdp_volume_open(NULL, NULL, &other));
  NULLED(cdp_volume, other, cdp_volume_create(store, "new", 1, &other));
  NULLED(cdp_snapshot, snapshot, cdp_snapshot_open(volume, 1 << 30, 0, &snapshot));
  NULLED(cdp_queue, queue, cdp_queue_open(volume, &queue_options, &queue));
  NULLED(cdp_tap, tap, cdp_tap_open(store, NULL, &source, NULL, &tap));
  NULLED(cdp_restore, restore, cdp_restore_start(NULL, &target, &restore));
  NULLED(cdp_restore, restore, cdp_restore_start_file(NULL, "x", &restore));
  NULLED(cdp_bookmark_iter, bookmarks, cdp_bookmark_iter_open(NULL, &bookmarks));
  NULLED(cdp_extent_iter, extents, cdp_volume_changed(volume, 9, 3, &extents));
  NULLED(cdp_extent_iter, extents, cdp_tap_dirty_extents(NULL, &extents));
  NULLED(cdp_runner, runner, cdp_runner_start(store, 1u << 9, &runner));
  NULLED(cdp_timeline, timeline, cdp_timeline_open(NULL, &timeline));
  NULLED(cdp_in_flight, in_flight, cdp_tap_begin(NULL, 0, BLOCK, &in_flight));
  NULLED(cdp_job, job, cdp_verify_start(store, NULL, &source, NULL, &job));
  NULLED(cdp_job, job, cdp_verify_start(NULL, NULL, NULL, NULL, &job));
  NULLED(cdp_job, job, cdp_resync_start(store, NULL, &source, NULL, &job));
  NULLED(cdp_job, job, cdp_scrub_start(store, NULL, 1, &job));
  NULLED(cdp_job, job, cdp_check_start(NULL, 0, &job));
  NULLED(cdp_dirty_map, map, cdp_dirty_map_create(1, 0, &map));
  NULLED(cdp_dirty_map, map, cdp_dirty_map_decode(&create, sizeof create, DISK, map_options.device, 0, &map));
  NULLED(cdp_dirty_map, map, cdp_dirty_map_resized(NULL, DISK, &map));
  NULLED(cdp_dirty_run, run, cdp_dirty_map_begin(NULL, 0, BLOCK, &run, &extent));
  NULLED(cdp_map_file, file, cdp_map_file_create(NULL, 0, &map_options, &file));
  NULLED(cdp_map_file, file, cdp_map_file_open(NULL, 0, &map_options, NULL, &file));
  NULLED(cdp_dirty_map, map, cdp_map_file_map(NULL, &map));
  NULLED(cdp_map_write, write, cdp_map_file_begin(NULL, 0, BLOCK, 0, &write));
  NULLED(cdp_extent_iter, extents, cdp_dirty_map_extents(NULL, &extents));
  NULLED(cdp_extent_iter, extents, cdp_job_verify_extents(NULL, &extents));
  NULLED(cdp_retention_plan, plan, cdp_retention_plan_open(store, 0, "nonsense", &plan));
  NULLED(cdp_history_size, size, cdp_size_of_rate("nonsense", 1, 1, &size));
  NULLED(cdp_history_size, size, cdp_size_of_trace("nonsense", "x", 0, &size));
  CHECK(extent.offset == 7 && extent.len == 7);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_create(DISK, 0, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_close(NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_run_clean(NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_write_end(NULL, 0));
}

/* Everything that comes from a store ends with it. */
static void families(void) {
  static unsigned char block[BLOCK];
  cdp_store *store = new_store(NULL, DISK), *other = new_store(NULL, DISK);
  cdp_volume *volume = NULL, *of_other = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_runner *runner = NULL;
  cdp_bookmark_iter *iter = NULL;
  cdp_bookmark_info info;
  CDP_INIT(info);
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_open(other, NULL, &of_other));
  OK(cdp_snapshot_open(volume, 0, 0, &snapshot));
  OK(cdp_bookmark_iter_open(store, &iter));
  OK(cdp_runner_start(store, CDP_RUNNER_NO_HEARTBEAT, &runner));
  OK(cdp_store_close(&store));
  EXPECT(CDP_ERR_CLOSED, cdp_volume_write(volume, 0, block, BLOCK, 0, NULL));
  EXPECT(CDP_ERR_CLOSED, cdp_snapshot_read(snapshot, 0, block, BLOCK));
  EXPECT(CDP_ERR_CLOSED, cdp_bookmark_iter_next(iter, &info));
  EXPECT(CDP_ERR_CLOSED, cdp_runner_stop(&runner));
  EXPECT(CDP_ERR_CLOSED, cdp_snapshot_close(&snapshot));
  OK(cdp_volume_write(of_other, 0, block, BLOCK, 0, NULL));
  OK(cdp_store_close(&other));
  OK(cdp_store_close(&other));
}

/* Handles are opened, used and closed by several threads at once, some of them twice. */
static cdp_store *shared;
static void *hammer(void *unused) {
  static unsigned char block[BLOCK];
  for (int round = 0; round < 300; round++) {
    cdp_volume *volume = NULL, *copy;
    OK(cdp_volume_open(shared, NULL, &volume));
    copy = volume;
    OK(cdp_volume_write(volume, 0, block, BLOCK, 0, NULL));
    OK(cdp_volume_close(&volume));
    EXPECT(CDP_ERR_CLOSED, cdp_volume_write(copy, 0, block, BLOCK, 0, NULL));
  }
  return unused;
}

int main(int argc, char **argv) {
  char path[512], missing[512];
  cdp_store *store, *none = NULL;
  cdp_create_options create;
  cdp_volume *volume = NULL;
  pthread_t threads[4];
  in_directory(missing, sizeof missing, argc, argv, "missing");
  store = new_store(in_directory(path, sizeof path, argc, argv, "store"), DISK);
  OK(cdp_volume_open(store, NULL, &volume));
  handles(store, volume);
  ranges(volume);
  structs(store);
  outputs(store, volume);
  families();
  EXPECT(CDP_ERR_NOT_FOUND, cdp_store_open(missing, NULL, &none));
  CHECK(none == NULL && cdp_last_error_errno() == 2);
  CDP_INIT(create);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create(missing, &create, &none));
  create.bytes = 1000;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create(missing, &create, &none));
  create.bytes = 1 << 20;
  EXPECT(CDP_ERR_EXISTS, cdp_store_create(path, &create, &none));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create(missing, NULL, &none));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create(missing, &create, NULL));
  shared = store;
  for (int at = 0; at < 4; at++) CHECK(pthread_create(&threads[at], NULL, hammer, NULL) == 0);
  for (int at = 0; at < 4; at++) CHECK(pthread_join(threads[at], NULL) == 0);
  CHECK(strcmp(cdp_status_name(CDP_ERR_CLOSED), "CDP_ERR_CLOSED") == 0);
  OK(cdp_store_close(&store));
  return 0;
}
