/* A store in files from its making to its reopening: volumes, writes, points, bookmarks, snapshots, what changed, restore, figures. */
#include "check.h"

enum { DISK = 1 << 20 };

static void volumes(cdp_store *store) {
  cdp_volume *second = NULL, *first = NULL;
  cdp_volume_info info;
  cdp_point point;
  OK(cdp_volume_create(store, "second", 8 * BLOCK, &second));
  EXPECT(CDP_ERR_EXISTS, cdp_volume_create(store, "second", 8 * BLOCK, &first));
  CHECK(first == NULL);
  CDP_INIT(info);
  OK(cdp_volume_at(store, 1, &info));
  CHECK(strcmp(info.name, "second") == 0 && info.bytes == 8 * BLOCK && info.id == 1);
  EXPECT(CDP_END, cdp_volume_at(store, 2, &info));
  OK(cdp_volume_resize(second, 16 * BLOCK, &point));
  OK(cdp_volume_info_get(second, &info));
  CHECK(info.bytes == 16 * BLOCK && point.seq > 0);
  OK(cdp_volume_open(store, NULL, &first));
  OK(cdp_volume_info_get(first, &info));
  CHECK(strcmp(info.name, "disk") == 0 && info.bytes == DISK);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_volume_open(store, "third", &first));
  CHECK(first == NULL);
  OK(cdp_volume_close(&second));
}

static void writes(cdp_volume *volume) {
  static unsigned char block[4 * BLOCK];
  uint64_t seq = 0, next = 0, durable = 0;
  cdp_iovec iov[2];
  fill(block, sizeof block, 1);
  OK(cdp_volume_write(volume, BLOCK, block, BLOCK, 0, &seq));
  OK(cdp_volume_write(volume, 2 * BLOCK, block, 2 * BLOCK, CDP_WRITE_FUA, &next));
  CHECK(next == seq + 1);
  OK(cdp_volume_flush(volume, &durable));
  CHECK(durable >= next);
  iov[0].base = block;
  iov[0].len = 512;
  iov[1].base = block;
  iov[1].len = BLOCK - 512;
  OK(cdp_volume_writev(volume, 0, iov, 2, 0, NULL));
  OK(cdp_volume_write_zeroes(volume, 2 * BLOCK, BLOCK, 0, NULL));
  OK(cdp_volume_discard(volume, 3 * BLOCK, BLOCK, 0, &seq));
  OK(cdp_volume_read(volume, 0, block, sizeof block));
  CHECK(is_all(block, 2 * BLOCK, 1) && is_all(block + 2 * BLOCK, 2 * BLOCK, 0));
}

/* A host whose writes have times of their own. */
static void dated(cdp_store *store, cdp_volume *volume) {
  static unsigned char block[BLOCK];
  cdp_point newest, found;
  uint64_t seq = 0;
  fill(block, BLOCK, 1);
  OK(cdp_resolve(store, "latest", &newest));
  OK(cdp_volume_write_at_time(volume, 0, block, BLOCK, CDP_WRITE_FUA, newest.time_ns + 1000, &seq));
  OK(cdp_resolve_time(store, newest.time_ns + 1000, &found));
  CHECK(found.seq == seq && found.time_ns == newest.time_ns + 1000);
  EXPECT(CDP_ERR_TIME_BACKWARDS, cdp_volume_write_at_time(volume, 0, block, BLOCK, 0, newest.time_ns, NULL));
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_volume_write_at_time(volume, 0, block, BLOCK, 8, UINT64_MAX, NULL));
}

/* Points before and after: each shows its own state, and what lies between them is listed. */
static void points(cdp_store *store, cdp_volume *volume) {
  static unsigned char block[BLOCK];
  cdp_point before, after, newest, near_before, near_after;
  cdp_bookmark_info info;
  cdp_bookmark_options options;
  cdp_snapshot *old = NULL;
  cdp_snapshot_info old_info;
  cdp_extent_iter *iter = NULL;
  cdp_extent extent;
  uint64_t next = 0;
  CDP_INIT(info);
  CDP_INIT(options);
  CDP_INIT(old_info);
  options.kind = CDP_BOOKMARK_APP;
  options.app = "postgresql";
  options.comment = "before the upgrade";
  options.flags = CDP_BOOKMARK_LOCKED | CDP_BOOKMARK_EXACT;
  OK(cdp_bookmark_create(store, "before", &options, NULL, &info));
  CHECK(info.flags == (CDP_BOOKMARK_LOCKED | CDP_BOOKMARK_EXACT) && info.kind == CDP_BOOKMARK_APP);
  CHECK(strcmp(info.app, "postgresql") == 0 && strcmp(info.comment, "before the upgrade") == 0);
  OK(cdp_resolve(store, "bookmark:before", &before));
  CHECK(before.seq == info.point.seq);
  fill(block, sizeof block, 2);
  OK(cdp_volume_write(volume, BLOCK, block, BLOCK, 0, NULL));
  OK(cdp_store_heartbeat(store));
  OK(cdp_resolve(store, "latest", &after));
  CHECK(after.seq == before.seq + 1);
  OK(cdp_resolve_time(store, after.time_ns, &newest));
  CHECK(newest.seq == after.seq);
  OK(cdp_resolve_newest_exact(store, &newest));
  CHECK(newest.seq == after.seq);
  OK(cdp_snapshot_open(volume, before.seq, 0, &old));
  OK(cdp_snapshot_info_get(old, &old_info));
  CHECK(old_info.seq == before.seq && old_info.bytes == DISK);
  OK(cdp_snapshot_read(old, BLOCK, block, BLOCK));
  CHECK(is_all(block, BLOCK, 1));
  OK(cdp_snapshot_next_data(old, 0, &next));
  CHECK(next == 0);
  EXPECT(CDP_END, cdp_snapshot_next_data(old, UINT64_MAX - 511, &next));
  OK(cdp_volume_read(volume, BLOCK, block, BLOCK));
  CHECK(is_all(block, BLOCK, 2));
  OK(cdp_volume_changed(volume, before.seq, after.seq, &iter));
  OK(cdp_extent_iter_next(iter, &extent));
  CHECK(extent.offset == BLOCK && extent.len == BLOCK);
  EXPECT(CDP_END, cdp_extent_iter_next(iter, &extent));
  OK(cdp_extent_iter_close(&iter));
  OK(cdp_snapshot_close(&old));
  /* A point that lies in the future names the nearest one. */
  EXPECT(CDP_ERR_POINT_EXPIRED, cdp_snapshot_open(volume, after.seq + 100, 0, &old));
  CHECK(old == NULL);
  OK(cdp_last_error_nearest(&near_before, &near_after));
  CHECK(near_before.seq == after.seq && near_after.time_ns == UINT64_MAX);
  CHECK(cdp_last_error_errno() == 0 && strstr(cdp_last_error_message(), "future") != NULL);
  EXPECT(CDP_ERR_POINT_EXPIRED, cdp_resolve(store, "bookmark:none", &newest));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_resolve(store, "whenever", &newest));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_last_error_nearest(NULL, NULL));
}

static void bookmarks(cdp_store *store) {
  cdp_bookmark_iter *iter = NULL;
  cdp_bookmark_info info;
  int seen = 0;
  CDP_INIT(info);
  OK(cdp_bookmark_create(store, "second", NULL, NULL, NULL));
  EXPECT(CDP_ERR_EXISTS, cdp_bookmark_create(store, "second", NULL, NULL, NULL));
  OK(cdp_bookmark_iter_open(store, &iter));
  while (cdp_bookmark_iter_next(iter, &info) == CDP_OK) seen++;
  OK(cdp_bookmark_iter_close(&iter));
  CHECK(seen == 2 && strcmp(info.name, "second") == 0 && info.kind == CDP_BOOKMARK_USER);
  EXPECT(CDP_ERR_LOCKED, cdp_bookmark_delete(store, "before"));
  OK(cdp_bookmark_set_locked(store, "before", 0));
  OK(cdp_bookmark_find(store, "before", &info));
  CHECK((info.flags & CDP_BOOKMARK_LOCKED) == 0);
  OK(cdp_bookmark_delete(store, "second"));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_bookmark_find(store, "second", &info));
}

static void timeline(cdp_store *store) {
  cdp_timeline *timeline = NULL;
  cdp_timeline_info info;
  cdp_range range;
  cdp_point point;
  CDP_INIT(info);
  CDP_INIT(range);
  OK(cdp_timeline_open(store, &timeline));
  OK(cdp_timeline_info_get(timeline, &info));
  CHECK(info.exact_ranges == 2 && info.gaps == 0 && info.retained == 0 && info.newest.seq > info.oldest.seq);
  OK(cdp_timeline_exact_at(timeline, 0, &range));
  CHECK(strcmp(range.volume, "disk") == 0 && range.granularity == CDP_RANGE_WRITES && range.to.seq == info.newest.seq);
  EXPECT(CDP_END, cdp_timeline_exact_at(timeline, 2, &range));
  EXPECT(CDP_END, cdp_timeline_gap_at(timeline, 0, &range));
  EXPECT(CDP_END, cdp_timeline_retained_at(timeline, 0, &point));
  OK(cdp_timeline_close(&timeline));
}

struct image {
  unsigned char bytes[DISK];
  int finished, freed, refuse;
};

static int32_t image_write(void *userdata, uint64_t offset, const void *buf, size_t len) {
  struct image *image = userdata;
  if (image->refuse) return -28;
  memcpy(image->bytes + offset, buf, len);
  return 0;
}
static int32_t image_zero(void *userdata, uint64_t offset, uint64_t len) {
  memset(((struct image *)userdata)->bytes + offset, 0, len);
  return 0;
}
static int32_t image_finish(void *userdata) {
  ((struct image *)userdata)->finished++;
  return 0;
}
static void image_free(void *userdata) { ((struct image *)userdata)->freed++; }

/* A restore in steps, one that is refused in the middle and goes on, one that is cancelled, and one into a file. */
static void restore(cdp_store *store, cdp_volume *volume, const char *path) {
  static struct image image;
  static unsigned char expected[DISK], found[DISK];
  cdp_snapshot *snapshot = NULL;
  cdp_restore *job = NULL;
  cdp_restore_progress progress;
  cdp_target target;
  cdp_point point;
  cdp_status status;
  FILE *file;
  CDP_INIT(progress);
  CDP_INIT(target);
  target.userdata = &image;
  target.write = image_write;
  target.zero = image_zero;
  target.finish = image_finish;
  target.free_userdata = image_free;
  memset(image.bytes, 0xee, DISK);
  OK(cdp_resolve(store, "bookmark:before", &point));
  OK(cdp_snapshot_open(volume, point.seq, 0, &snapshot));
  OK(cdp_snapshot_read(snapshot, 0, expected, DISK));
  OK(cdp_restore_start(snapshot, &target, &job));
  image.refuse = 1;
  EXPECT(CDP_ERR_IO, cdp_restore_step(job, 0, &progress));
  CHECK(cdp_last_error_errno() == 28 && progress.bytes_total == 0);
  /* Threads that read ahead end with a step that fails. */
  OK(cdp_restore_set_readers(job, 2));
  EXPECT(CDP_ERR_IO, cdp_restore_step(job, UINT64_MAX, &progress));
  OK(cdp_restore_set_readers(job, 0));
  image.refuse = 0;
  while ((status = cdp_restore_step(job, 0, &progress)) == CDP_OK) CHECK(progress.bytes_done < DISK);
  EXPECT(CDP_END, status);
  CHECK(progress.bytes_done == DISK && progress.data_bytes + progress.zero_bytes == DISK && image.finished == 1);
  CHECK(memcmp(image.bytes, expected, DISK) == 0 && image.freed == 0);
  OK(cdp_restore_close(&job));
  CHECK(image.freed == 1);
  OK(cdp_restore_start(snapshot, &target, &job));
  OK(cdp_restore_close(&job));
  CHECK(image.freed == 2 && image.finished == 1);
  OK(cdp_restore_start_file(snapshot, path, &job));
  EXPECT(CDP_END, cdp_restore_step(job, UINT64_MAX, NULL));
  OK(cdp_restore_close(&job));
  EXPECT(CDP_ERR_EXISTS, cdp_restore_start_file(snapshot, path, &job));
  file = fopen(path, "rb");
  CHECK(file != NULL && fread(found, 1, DISK, file) == DISK && fgetc(file) == EOF);
  fclose(file);
  CHECK(memcmp(found, expected, DISK) == 0);
  OK(cdp_snapshot_close(&snapshot));
}

static void figures(cdp_store *store, cdp_volume *volume) {
  cdp_store_stats stats;
  cdp_volume_stats own;
  cdp_store_info info;
  CDP_INIT(stats);
  CDP_INIT(own);
  CDP_INIT(info);
  OK(cdp_store_stats_get(store, &stats));
  CHECK(stats.source_bytes > 0 && stats.stored_bytes > stats.source_bytes && stats.pool_frames == 0);
  /* What the writes cost is part of all that was written, and there is an index as soon as there are runs. */
  CHECK(stats.frame_bytes > 0 && stats.frame_bytes <= stats.written_bytes && stats.index_bytes <= stats.stored_bytes);
  CHECK((stats.index_bytes > 0) == (stats.runs > 0));
  OK(cdp_volume_stats_get(volume, &own));
  CHECK(own.mode == CDP_CAPTURE_INLINE && own.writes >= 4 && own.sizes[3] >= 2);
  OK(cdp_store_info_get(store, &info));
  CHECK(info.volumes == 2 && info.format_version == 1 && info.damage_count == 0 && (info.flags & CDP_STORE_READ_ONLY) == 0);
}

static void background(cdp_store *store, cdp_volume *volume) {
  static unsigned char block[BLOCK];
  cdp_runner *runner = NULL;
  cdp_event event;
  uint64_t dropped = 1, damage = 1;
  char text[8];
  cdp_status status;
  CDP_INIT(event);
  OK(cdp_volume_write(volume, 0, block, BLOCK, 0, NULL));
  while ((status = cdp_store_step(store, 0)) == CDP_OK) {
  }
  EXPECT(CDP_END, status);
  EXPECT(CDP_END, cdp_store_step_retention(store));
  OK(cdp_runner_start(store, 0, &runner));
  OK(cdp_volume_write(volume, 0, block, BLOCK, 0, NULL));
  OK(cdp_runner_stop(&runner));
  CHECK(runner == NULL);
  EXPECT(CDP_END, cdp_event_next(store, &event, &dropped));
  CHECK(dropped == 0);
  OK(cdp_store_check(store, CDP_CHECK_DEEP, NULL, &damage, text, sizeof text));
  CHECK(damage == 0 && text[0] == 0);
  OK(cdp_store_set_coalescing(store, CDP_COALESCE_INTERVAL, 1000000));
  OK(cdp_store_set_coalescing(store, CDP_COALESCE_NONE, 0));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_set_coalescing(store, CDP_COALESCE_INTERVAL, 0));
  OK(cdp_store_confirm_clock(store));
  OK(cdp_store_cover(store, 1));
}

static void retention(cdp_store *store) {
  static const char policy[] = "[[window]]\nto = \"1h\"\nkeep = \"all\"\n";
  char buf[512];
  size_t len = 0;
  cdp_retention_report report, done;
  CDP_INIT(report);
  CDP_INIT(done);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_retention_set(store, "to = \"1h\""));
  OK(cdp_retention_set(store, policy));
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, cdp_retention_get(store, CDP_POLICY_JSON, NULL, 0, &len));
  CHECK(len > 0 && len < sizeof buf);
  OK(cdp_retention_get(store, CDP_POLICY_JSON, buf, sizeof buf, &len));
  CHECK(buf[0] == '{' && strstr(buf, "1h") != NULL);
  OK(cdp_retention_preview(store, 0, NULL, &report));
  /* What was before the first write is as old as the epoch, and goes; everything else is seconds old. */
  CHECK(report.keep_points > report.drop_points && report.horizon.seq == report.drop_points);
  OK(cdp_retention_run(store, 0, &done));
  CHECK(done.drop_points == report.drop_points && done.keep_points == report.keep_points);
  OK(cdp_retention_preview(store, 0, policy, &done));
  CHECK(done.drop_points == 0);
}

/* Read-only beside the owner, and everything still there after the end. */
static void reopen(const char *path, cdp_store **store) {
  cdp_store *reader = NULL, *second = NULL;
  cdp_open_options options;
  cdp_store_info info;
  cdp_volume *volume = NULL;
  static unsigned char block[BLOCK];
  uint64_t durable;
  CDP_INIT(options);
  CDP_INIT(info);
  EXPECT(CDP_ERR_BUSY, cdp_store_open(path, NULL, &second));
  OK(cdp_store_flush(*store, &durable));
  options.flags = CDP_OPEN_READ_ONLY;
  OK(cdp_store_open(path, &options, &reader));
  OK(cdp_store_info_get(reader, &info));
  CHECK((info.flags & CDP_STORE_READ_ONLY) != 0 && info.newest.seq == durable);
  OK(cdp_volume_open(reader, "disk", &volume));
  EXPECT(CDP_ERR_READ_ONLY, cdp_volume_write(volume, 0, block, BLOCK, 0, NULL));
  CHECK(cdp_status_errno(CDP_ERR_READ_ONLY) == 30);
  OK(cdp_store_close(&reader));
  EXPECT(CDP_ERR_CLOSED, cdp_volume_read(volume, 0, block, BLOCK));
  OK(cdp_store_close(store));
  OK(cdp_store_open(path, NULL, store));
  OK(cdp_store_info_get(*store, &info));
  CHECK((info.flags & CDP_STORE_CLEAN) != 0 && info.newest.seq >= durable);
  OK(cdp_volume_open(*store, "disk", &volume));
  OK(cdp_volume_read(volume, BLOCK, block, BLOCK));
  CHECK(is_all(block, BLOCK, 2));
}

int main(int argc, char **argv) {
  char path[512], image[512];
  cdp_store *store;
  cdp_volume *volume = NULL;
  cdp_storage *directory = NULL;
  CHECK(cdp_version_number() == CDP_VERSION_MAJOR * 1000000u + CDP_VERSION_MINOR * 1000u + CDP_VERSION_PATCH);
  CHECK(cdp_abi_version() == CDP_ABI_VERSION && strchr(cdp_version_string(), '.') != NULL);
  CHECK(cdp_last_error_message()[0] == 0);
  in_directory(image, sizeof image, argc, argv, "restored.img");
  in_directory(path, sizeof path, argc, argv, "store");
  store = new_store(path, DISK);
  OK(cdp_volume_open(store, "disk", &volume));
  volumes(store);
  writes(volume);
  dated(store, volume);
  points(store, volume);
  bookmarks(store);
  timeline(store);
  restore(store, volume, image);
  figures(store, volume);
  background(store, volume);
  retention(store);
  reopen(path, &store);
  OK(cdp_store_close(&store));
  OK(cdp_storage_open_directory(path, 0, &directory));
  OK(cdp_storage_close(&directory));
  return 0;
}
