/* Verification that is taken up again: a cursor that outlives the process that asked for it, and what is no cursor. A mirror set as the source of everything. */
#include "check.h"

enum { DISK = 8 << 20 };

static unsigned char disk[DISK];
static uint64_t read_bytes;

static int32_t disk_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  memcpy(buf, disk + offset, len);
  __atomic_add_fetch(&read_bytes, len, __ATOMIC_SEQ_CST);
  return 0;
}

static cdp_source source(void) {
  cdp_source made;
  CDP_INIT(made);
  made.read = disk_read;
  return made;
}

static void finish(cdp_job *job) {
  cdp_status status;
  while ((status = cdp_job_step(job, 1 << 20, NULL)) == CDP_OK) {
  }
  EXPECT(CDP_END, status);
}

/* The cursor of a job in memory of its own; NULL when it has none. */
static char *cursor_of(cdp_job *job, size_t *len) {
  char *kept;
  cdp_status status;
  *len = 7;
  status = cdp_job_verify_cursor(job, NULL, 0, len);
  if (status == CDP_END) {
    CHECK(*len == 7);
    return NULL;
  }
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, status);
  CHECK(*len > 7 && *len <= CDP_VERIFY_CURSOR_BYTES_MAX);
  kept = malloc(*len);
  CHECK(kept != NULL);
  OK(cdp_job_verify_cursor(job, kept, *len, len));
  return kept;
}

static void taken_up(const char *path) {
  cdp_store *store = new_store(path, DISK), *other;
  cdp_volume *volume = NULL;
  cdp_source from = source();
  cdp_verify_options options;
  cdp_verify_report report;
  cdp_extent extents[4];
  cdp_job *job = NULL, *check = NULL;
  char *cursor, *again;
  size_t len, len_again;
  CDP_INIT(options);
  CDP_INIT(report);
  for (size_t at = 0; at < DISK; at++) disk[at] = (unsigned char)(at / BLOCK % 251 + 1);
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_write(volume, 0, disk, DISK, CDP_WRITE_FUA, NULL));
  disk[5 * BLOCK + 1] ^= 1;
  disk[DISK - 1] ^= 1;

  /* Three pieces, then the host goes without a word: what it kept is all that is left. */
  OK(cdp_verify_start(store, NULL, &from, NULL, &job));
  cursor = cursor_of(job, &len);
  CHECK(cursor != NULL);
  free(cursor);
  for (int at = 0; at < 3; at++) OK(cdp_job_step(job, 0, NULL));
  cursor = cursor_of(job, &len);
  CHECK(cursor != NULL);
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, cdp_job_verify_cursor(job, &report, 8, &len_again));
  CHECK(len_again == len && report.struct_size == sizeof report && report.flags == 0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_verify_cursor(job, cursor, len, NULL));
  OK(cdp_store_close(&store));
  OK(cdp_store_open(path, NULL, &store));
  read_bytes = 0;
  options.cursor = cursor;
  options.cursor_len = len;
  OK(cdp_verify_start(store, "disk", &from, &options, &job));
  again = cursor_of(job, &len_again);
  CHECK(again != NULL && len_again == len && memcmp(again, cursor, len) == 0);
  free(again);
  finish(job);
  OK(cdp_job_verify_report(job, &report));
  CHECK(report.flags == CDP_VERIFY_COMPLETE && report.extents_count == 2 && report.bytes_different == 2 * BLOCK);
  CHECK(report.bytes_compared == DISK - (3 << 20) && read_bytes < DISK);
  CHECK(cursor_of(job, &len_again) == NULL);
  OK(cdp_job_close(&job));

  /* The same at once, with threads that read ahead. */
  options.readers = 2;
  OK(cdp_verify(store, NULL, &from, &options, NULL, extents, 4, &report));
  CHECK(report.bytes_compared == DISK - (3 << 20) && report.extents_count == 2);
  CHECK(extents[0].offset == 5 * BLOCK && extents[1].offset == DISK - BLOCK);

  /* One that was cancelled still says where it stood; one that has begun takes no cursor from elsewhere. */
  OK(cdp_verify_start(store, NULL, &from, &options, &job));
  OK(cdp_job_step(job, 0, NULL));
  OK(cdp_job_cancel(job));
  EXPECT(CDP_END, cdp_job_step(job, 0, NULL));
  again = cursor_of(job, &len_again);
  CHECK(again != NULL && (len_again != len || memcmp(again, cursor, len) != 0));
  free(again);
  OK(cdp_job_close(&job));

  /* What is no cursor, or one of something else. */
  OK(cdp_check_start(store, 0, &check));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_verify_cursor(check, NULL, 0, &len_again));
  OK(cdp_job_close(&check));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_verify_cursor(NULL, NULL, 0, &len_again));
  other = new_store(NULL, DISK);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_verify_start(other, NULL, &from, &options, &job));
  OK(cdp_store_close(&other));
  cursor[len / 2] = '\xff';
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_verify_start(store, NULL, &from, &options, &job));
  options.cursor_len = len - 1;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_verify_start(store, NULL, &from, &options, &job));
  options.cursor_len = CDP_VERIFY_CURSOR_BYTES_MAX + 1;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_verify_start(store, NULL, &from, &options, &job));
  options.cursor = NULL;
  options.cursor_len = len;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_verify_start(store, NULL, &from, &options, &job));
  CDP_INIT(options);
  options.reserved = 1;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_verify_start(store, NULL, &from, &options, &job));
  CHECK(job == NULL);
  free(cursor);
  OK(cdp_store_close(&store));
}

/* A store that is resynced, compared, and captured beside a mirror set. */
static void from_a_mirror(const char *path, const char *copy) {
  cdp_mirror_create_options create;
  cdp_copy *file = NULL;
  cdp_new_copy copies[1];
  cdp_mirror *mirror = NULL;
  cdp_store *store = new_store(NULL, DISK);
  cdp_source from, kept;
  cdp_resync_report resynced;
  cdp_verify_report report;
  cdp_tap_options tap_options;
  cdp_tap *tap = NULL;
  cdp_job *job = NULL;
  unsigned char block[BLOCK];
  CDP_INIT(create);
  CDP_INIT(from);
  CDP_INIT(resynced);
  CDP_INIT(report);
  CDP_INIT(tap_options);
  create.bytes = DISK;
  OK(cdp_copy_create_file(copy, DISK, &file));
  copies[0].locator = copy;
  copies[0].copy = file;
  OK(cdp_mirror_create(path, &create, copies, 1, &mirror));
  OK(cdp_copy_close(&file));
  OK(cdp_mirror_write(mirror, 0, disk, DISK));

  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_source(NULL, &from));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_source(mirror, NULL));
  OK(cdp_mirror_source(mirror, &from));
  OK(cdp_resync(store, NULL, &from, NULL, NULL, &resynced));
  CHECK(resynced.bytes_different == DISK && resynced.bytes_left == 0);
  /* It was good for one call. */
  EXPECT(CDP_ERR_IO, cdp_verify(store, NULL, &from, NULL, NULL, NULL, 0, &report));
  fill(block, BLOCK, 77);
  OK(cdp_mirror_write(mirror, 3 * BLOCK, block, BLOCK));
  OK(cdp_mirror_source(mirror, &from));
  OK(cdp_verify(store, NULL, &from, NULL, NULL, NULL, 0, &report));
  CHECK(report.flags == CDP_VERIFY_COMPLETE && report.bytes_different == BLOCK);
  OK(cdp_mirror_source(mirror, &from));
  OK(cdp_resync_start(store, NULL, &from, NULL, &job));
  finish(job);
  OK(cdp_job_close(&job));

  /* A tap beside it, with an activity log: the set can make its writes durable. */
  OK(cdp_mirror_source(mirror, &from));
  tap_options.flags = CDP_TAP_ACTIVITY_LOG;
  tap_options.source_state = CDP_SOURCE_DIFFERS;
  OK(cdp_tap_open(store, NULL, &from, &tap_options, &tap));
  OK(cdp_mirror_write(mirror, 9 * BLOCK, block, BLOCK));
  OK(cdp_tap_mark(tap, 9 * BLOCK, BLOCK, CDP_GAP_HOST));
  OK(cdp_tap_resync(tap, NULL, NULL, NULL));
  OK(cdp_tap_close(&tap));
  OK(cdp_mirror_source(mirror, &from));
  OK(cdp_verify(store, NULL, &from, NULL, NULL, NULL, 0, &report));
  CHECK(report.bytes_different == 0);

  /* One that nobody uses ends with the set, and one in use fails then. */
  CDP_INIT(kept);
  OK(cdp_mirror_source(mirror, &kept));
  OK(cdp_mirror_source(mirror, &from));
  OK(cdp_verify_start(store, NULL, &from, NULL, &job));
  OK(cdp_mirror_close(&mirror));
  EXPECT(CDP_ERR_IO, cdp_job_step(job, UINT64_MAX, NULL));
  OK(cdp_job_close(&job));
  EXPECT(CDP_ERR_IO, cdp_verify(store, NULL, &kept, NULL, NULL, NULL, 0, &report));
  OK(cdp_store_close(&store));
}

int main(int argc, char **argv) {
  char path[512], mirror[512], copy[512];
  in_directory(path, sizeof path, argc, argv, "store");
  in_directory(mirror, sizeof mirror, argc, argv, "mirror");
  in_directory(copy, sizeof copy, argc, argv, "copy");
  taken_up(path);
  from_a_mirror(mirror, copy);
  return 0;
}
