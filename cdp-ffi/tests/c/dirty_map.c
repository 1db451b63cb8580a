/* Dirty maps by themselves: set, copied in runs, sent to a peer, resized; and kept true across a crash by an activity log. */
#include "check.h"

#include <pthread.h>

enum { DISK = 1 << 30, MIB = 1 << 20 };

static uint64_t dirty_of(const cdp_dirty_map *map, uint64_t bytes) {
  cdp_dirty_map_info info;
  CDP_INIT(info);
  OK(cdp_dirty_map_info_get(map, &info));
  CHECK(info.bytes == bytes && info.granularity_bytes == BLOCK);
  return info.dirty_bytes;
}

static uint64_t dirty(const cdp_dirty_map *map) { return dirty_of(map, DISK); }

static int is_dirty(const cdp_dirty_map *map, uint64_t offset, uint64_t len) {
  uint32_t found = 77;
  OK(cdp_dirty_map_is_dirty(map, offset, len, &found));
  return (int)found;
}

static cdp_uuid device(unsigned char byte) {
  cdp_uuid made;
  memset(&made, byte, sizeof made);
  return made;
}

static void *set_many(void *of) {
  for (uint64_t at = 0; at < 1000; at++) OK(cdp_dirty_map_set(of, at * BLOCK, 1));
  return NULL;
}

static void in_memory(void) {
  cdp_dirty_map *map = NULL, *other = NULL, *larger = NULL, *gone;
  cdp_dirty_run *run = NULL, *second = NULL;
  cdp_extent_iter *iter = NULL;
  cdp_extent extent, extents[2], read;
  cdp_dirty_map_info info;
  pthread_t threads[2];
  uint64_t next = 77;
  size_t len;
  void *bytes;
  CDP_INIT(info);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_create(100, 0, &map));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_create(DISK, 5000, &map));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_create(UINT64_MAX - 511, BLOCK, &map));
  OK(cdp_dirty_map_create(DISK, BLOCK, &map));
  CHECK(dirty(map) == 0 && !is_dirty(map, 0, DISK));
  EXPECT(CDP_END, cdp_dirty_map_next(map, 0, &next));
  EXPECT(CDP_END, cdp_dirty_map_begin(map, 0, MIB, &run, &extent));
  CHECK(next == 77 && run == NULL);

  /* Any bytes, outward; what lies past the end is nothing. */
  OK(cdp_dirty_map_set(map, 3 * BLOCK + 5, BLOCK));
  OK(cdp_dirty_map_set(map, DISK, BLOCK));
  OK(cdp_dirty_map_set(map, UINT64_MAX, UINT64_MAX));
  CHECK(dirty(map) == 2 * BLOCK && is_dirty(map, 4 * BLOCK, 1) && !is_dirty(map, 5 * BLOCK, BLOCK));
  OK(cdp_dirty_map_next(map, 0, &next));
  CHECK(next == 3 * BLOCK);
  OK(cdp_dirty_map_next(map, 3 * BLOCK + 9, &next));
  CHECK(next == 3 * BLOCK + 9);
  EXPECT(CDP_END, cdp_dirty_map_next(map, UINT64_MAX, &next));
  extents[0].offset = MIB;
  extents[0].len = MIB;
  extents[1].offset = DISK - BLOCK;
  extents[1].len = 2 * BLOCK;
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_dirty_map_set_extents(map, extents, 2));
  extents[1].len = BLOCK;
  OK(cdp_dirty_map_set_extents(map, extents, 2));
  CHECK(dirty(map) == 3 * BLOCK + MIB);

  /* A run is claimed until it is clean; nobody else is given it, and what is set meanwhile stays dirty. */
  OK(cdp_dirty_map_begin(map, 0, 64 * BLOCK, &run, &extent));
  CHECK(extent.offset == 3 * BLOCK && extent.len == 2 * BLOCK && dirty(map) == 3 * BLOCK + MIB);
  OK(cdp_dirty_map_begin(map, 0, 64 * BLOCK, &second, &extent));
  CHECK(extent.offset == MIB && extent.len == 64 * BLOCK);
  OK(cdp_dirty_map_set(map, 4 * BLOCK, 1));
  OK(cdp_dirty_run_clean(&run, NULL));
  CHECK(run == NULL && is_dirty(map, 4 * BLOCK, 1) && !is_dirty(map, 3 * BLOCK, BLOCK));
  OK(cdp_dirty_run_clean(&run, NULL));
  OK(cdp_dirty_run_abandon(&second));
  CHECK(dirty(map) == 2 * BLOCK + MIB);
  OK(cdp_dirty_map_begin(map, MIB, 0, &run, &extent));
  CHECK(extent.offset == MIB && extent.len == BLOCK);
  OK(cdp_dirty_run_abandon(&run));
  OK(cdp_dirty_run_abandon(&run));
  OK(cdp_dirty_map_begin(map, MIB, 4 * BLOCK, &run, &extent));
  read.offset = MIB;
  read.len = BLOCK + 100;
  OK(cdp_dirty_run_clean(&run, &read));
  CHECK(dirty(map) == BLOCK + MIB && !is_dirty(map, MIB, BLOCK) && is_dirty(map, MIB + BLOCK, 1));

  /* To a peer as bytes, under a name. */
  OK(cdp_dirty_map_extents(map, &iter));
  OK(cdp_extent_iter_next(iter, &extent));
  CHECK(extent.offset == 4 * BLOCK && extent.len == BLOCK);
  OK(cdp_extent_iter_next(iter, &extent));
  CHECK(extent.offset == MIB + BLOCK && extent.len == MIB - BLOCK);
  OK(cdp_extent_iter_next(iter, &extent));
  CHECK(extent.offset == DISK - BLOCK && extent.len == BLOCK);
  EXPECT(CDP_END, cdp_extent_iter_next(iter, &extent));
  OK(cdp_extent_iter_close(&iter));
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, cdp_dirty_map_encode(map, device(1), 9, NULL, 0, &len));
  bytes = malloc(len);
  CHECK(bytes != NULL);
  OK(cdp_dirty_map_encode(map, device(1), 9, bytes, len, &len));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_dirty_map_decode(bytes, len, DISK, device(2), 9, &other));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_dirty_map_decode(bytes, len, DISK, device(1), 8, &other));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_dirty_map_decode(bytes, len, DISK + BLOCK, device(1), 9, &other));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_dirty_map_decode(bytes, len - 1, DISK, device(1), 9, &other));
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_dirty_map_decode("", 0, DISK, device(1), 9, &other));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_decode(NULL, len, DISK, device(1), 9, &other));
  OK(cdp_dirty_map_decode(bytes, len, DISK, device(1), 9, &other));
  CHECK(dirty(other) == BLOCK + MIB);
  free(bytes);
  OK(cdp_dirty_map_set(other, 100 * MIB, BLOCK));
  OK(cdp_dirty_map_merge(map, other));
  OK(cdp_dirty_map_merge(map, map));
  CHECK(dirty(map) == 2 * BLOCK + MIB);

  /* Another size: what is new is dirty. */
  OK(cdp_dirty_map_resized(map, DISK + MIB, &larger));
  OK(cdp_dirty_map_info_get(larger, &info));
  CHECK(info.bytes == DISK + MIB && info.dirty_bytes == 2 * BLOCK + 2 * MIB);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_merge(map, larger));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_merge(map, NULL));
  OK(cdp_dirty_map_close(&larger));
  OK(cdp_dirty_map_set_all(map));
  CHECK(dirty(map) == DISK);

  /* Sets of several threads; runs and lists end with their map. */
  for (int at = 0; at < 2; at++) CHECK(pthread_create(&threads[at], NULL, set_many, other) == 0);
  for (int at = 0; at < 2; at++) CHECK(pthread_join(threads[at], NULL) == 0);
  CHECK(is_dirty(other, 999 * BLOCK, 1) && dirty(other) == (1000 + 2) * BLOCK);
  OK(cdp_dirty_map_begin(other, 0, MIB, &run, &extent));
  gone = other;
  OK(cdp_dirty_map_close(&other));
  OK(cdp_dirty_map_close(&other));
  EXPECT(CDP_ERR_CLOSED, cdp_dirty_map_set(gone, 0, 1));
  EXPECT(CDP_ERR_CLOSED, cdp_dirty_run_clean(&run, NULL));
  CHECK(run == NULL);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_dirty_map_set_all(NULL));
  OK(cdp_dirty_map_close(&map));
}

static cdp_map_file_options options_of(void) {
  cdp_map_file_options options;
  CDP_INIT(options);
  options.bytes = DISK;
  options.granularity_bytes = BLOCK;
  options.device = device(7);
  options.generation = 1;
  return options;
}

static void in_a_file(const char *path) {
  cdp_storage *storage = NULL;
  cdp_map_file_options options = options_of(), opens = options_of();
  cdp_map_file_opened opened;
  cdp_map_file_info info;
  cdp_map_file *file = NULL, *gone;
  cdp_map_write *write = NULL, *many[8] = {NULL};
  cdp_dirty_map *map = NULL;
  cdp_dirty_run *run = NULL;
  cdp_extent extent;
  char command[1200];
  CDP_INIT(opened);
  CDP_INIT(info);
  snprintf(command, sizeof command, "mkdir %s", path);
  CHECK(system(command) == 0);
  OK(cdp_storage_open_directory(path, 0, &storage));
  options.regions_active_max = 3;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_create(storage, 4, &options, &file));
  options.regions_active_max = 4;
  options.region_bytes = MIB;
  options.ring_records = 4;
  options.flags = 1u << 9;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_map_file_create(storage, 4, &options, &file));
  options.flags = 0;
  EXPECT(CDP_ERR_NOT_FOUND, cdp_map_file_open(storage, 4, &opens, &opened, &file));
  OK(cdp_map_file_create(storage, 4, &options, &file));
  gone = NULL;
  EXPECT(CDP_ERR_EXISTS, cdp_map_file_create(storage, 4, &options, &gone));
  CHECK(gone == NULL);
  OK(cdp_map_file_info_get(file, &info));
  CHECK(info.generation == 1 && info.write_bytes_max == MIB && info.device.bytes[3] == 7);

  /* A write that is in flight when all stops is claimed, with its region; one that has ended well is not. */
  OK(cdp_map_file_map(file, &map));
  OK(cdp_map_file_begin(file, 10 * MIB, BLOCK, 0, &write));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_write_end(&write, 2));
  CHECK(write != NULL && dirty(map) == 0);
  OK(cdp_map_write_end(&write, 1));
  OK(cdp_map_write_end(&write, 1));
  CHECK(dirty(map) == 0);
  OK(cdp_map_file_begin(file, 20 * MIB, BLOCK, 0, &write));
  OK(cdp_map_write_end(&write, 0));
  CHECK(dirty(map) == BLOCK && is_dirty(map, 20 * MIB, 1));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_map_file_begin(file, DISK, BLOCK, 0, &write));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_begin(file, 0, 8 * MIB, 0, &write));
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_map_file_begin(file, 0, BLOCK, 1u << 7, &write));
  {
    int begun = 0;
    cdp_status status = CDP_OK;
    while (begun < 8 && (status = cdp_map_file_begin(file, (uint64_t)(100 + 10 * begun) * MIB, BLOCK,
                                                     CDP_MAP_NO_WAIT, &many[begun])) == CDP_OK)
      begun++;
    CHECK(status == CDP_END && begun > 0 && begun <= 4 && many[begun] == NULL);
    while (begun > 0) OK(cdp_map_write_end(&many[--begun], 1));
  }
  OK(cdp_map_file_begin(file, 30 * MIB, BLOCK, 0, &write));
  OK(cdp_map_file_checkpoint(file));
  snprintf(command, sizeof command, "cp -r %s %s-crash", path, path);
  CHECK(system(command) == 0);
  OK(cdp_dirty_map_begin(map, 20 * MIB, MIB, &run, &extent));
  OK(cdp_dirty_run_clean(&run, NULL));
  EXPECT(CDP_END, cdp_dirty_map_begin(map, 0, MIB, &run, &extent));
  OK(cdp_map_file_rotate(file, 2));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_rotate(file, 2));
  gone = file;
  OK(cdp_map_file_close(&file));
  OK(cdp_map_file_close(&file));
  EXPECT(CDP_ERR_CLOSED, cdp_map_file_checkpoint(gone));
  EXPECT(CDP_ERR_CLOSED, cdp_map_write_end(&write, 1));
  EXPECT(CDP_ERR_CLOSED, cdp_dirty_map_set_all(map));
  EXPECT(CDP_ERR_CLOSED, cdp_dirty_map_close(&map));

  /* Closed in good order it is exact: the write that was under way is dirty, and nothing else. */
  EXPECT(CDP_ERR_MAP_REFUSED, cdp_map_file_open(storage, 4, &opens, &opened, &file));
  CHECK(file == NULL && opened.flags == 0);
  opens.generation = 2;
  opens.region_bytes = MIB;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_open(storage, 4, &opens, &opened, &file));
  opens.region_bytes = 0;
  OK(cdp_map_file_open(storage, 4, &opens, &opened, &file));
  CHECK(opened.flags == CDP_MAP_WAS_CLEAN && opened.text[0] == 0);
  OK(cdp_map_file_map(file, &map));
  CHECK(dirty(map) == BLOCK && is_dirty(map, 30 * MIB, 1));

  /* Without the log a crash makes everything dirty, and so does the host. */
  OK(cdp_map_file_set_log(file, 0));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_set_log(file, 2));
  OK(cdp_map_file_set_log(file, 1));
  OK(cdp_map_file_mark_all(file));
  CHECK(dirty(map) == DISK);
  OK(cdp_dirty_map_close(&map));
  OK(cdp_map_file_close(&file));
  OK(cdp_map_file_open(storage, 4, &opens, NULL, &file));
  OK(cdp_map_file_close(&file));
  OK(cdp_storage_close(&storage));

  /* What was there when all stopped. */
  snprintf(command, sizeof command, "%s-crash", path);
  OK(cdp_storage_open_directory(command, 0, &storage));
  opens.generation = 1;
  OK(cdp_map_file_open(storage, 4, &opens, &opened, &file));
  CHECK(opened.flags == 0 && opened.regions_replayed > 0 && opened.pages_damaged == 0);
  OK(cdp_map_file_map(file, &map));
  CHECK(is_dirty(map, 30 * MIB, MIB) && is_dirty(map, 20 * MIB, BLOCK) && !is_dirty(map, 500 * MIB, 100 * MIB));
  OK(cdp_map_file_close(&file));
  options.flags = CDP_MAP_ALL_DIRTY | CDP_MAP_WITHOUT_LOG;
  OK(cdp_map_file_create(storage, 5, &options, &file));
  OK(cdp_map_file_map(file, &map));
  CHECK(dirty(map) == DISK);
  OK(cdp_map_file_close(&file));

  /* At another size on another extent: what was dirty stays so, what is new is dirty, and the old file lets no write through any more. */
  options.flags = 0;
  OK(cdp_map_file_create(storage, 7, &options, &file));
  OK(cdp_map_file_begin(file, 10 * MIB, BLOCK, 0, &write));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_resize_into(&file, storage, 8, DISK + MIB, &gone));
  OK(cdp_map_write_end(&write, 1));
  OK(cdp_map_file_map(file, &map));
  OK(cdp_dirty_map_set(map, 10 * MIB, 1));
  OK(cdp_dirty_map_close(&map));
  EXPECT(CDP_ERR_EXISTS, cdp_map_file_resize_into(&file, storage, 7, DISK + MIB, &gone));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_resize_into(&file, storage, 8, 0, &gone));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_resize_into(NULL, storage, 8, DISK + MIB, &gone));
  OK(cdp_map_file_resize_into(&file, storage, 8, DISK + MIB, &gone));
  CHECK(file == NULL);
  OK(cdp_map_file_map(gone, &map));
  CHECK(dirty_of(map, DISK + MIB) == BLOCK + MIB && is_dirty(map, 10 * MIB, BLOCK) && is_dirty(map, DISK, MIB));
  OK(cdp_map_file_close(&gone));
  OK(cdp_storage_close(&storage));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_map_file_create(storage, 6, &options, &file));
}

int main(int argc, char **argv) {
  char path[512];
  in_directory(path, sizeof path, argc, argv, "maps");
  in_memory();
  in_a_file(path);
  return 0;
}
