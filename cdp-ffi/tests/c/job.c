/* Jobs: resync, verify, check, restore and retention in steps; cancelled from another thread, closed at any moment, and what is refused. */
#include "check.h"

#include <errno.h>
#include <pthread.h>

enum { DISK = 16 << 20 };

static unsigned char disk[DISK];
static int freed, fail_reads;
static uint64_t generation;

static int32_t disk_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  if (fail_reads) return -EREMOTEIO;
  memcpy(buf, disk + offset, len);
  return 0;
}
static int32_t disk_sync(void *userdata) {
  (void)userdata;
  return 0;
}
static int32_t disk_stamp(void *userdata, cdp_source_stamp *stamp_out) {
  (void)userdata;
  memset(stamp_out, 0, sizeof *stamp_out);
  stamp_out->changed_ns = generation;
  return 0;
}
static void disk_free(void *userdata) { ++*(int *)userdata; }

static cdp_source source(void) {
  cdp_source made;
  CDP_INIT(made);
  made.userdata = &freed;
  made.read = disk_read;
  made.sync = disk_sync;
  made.stamp = disk_stamp;
  made.free_userdata = disk_free;
  return made;
}

static void disk_write(uint64_t offset, int byte, size_t len) {
  memset(disk + offset, byte, len);
  generation++;
}

static void same_as_disk(cdp_store *store) {
  static unsigned char found[DISK];
  cdp_volume *volume = NULL;
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_read(volume, 0, found, DISK));
  CHECK(memcmp(found, disk, DISK) == 0);
  OK(cdp_volume_close(&volume));
}

/* Steps a job to its end; returns the number of steps. */
static int finish(cdp_job *job, uint64_t budget) {
  cdp_job_progress progress, asked;
  uint64_t before = 0;
  CDP_INIT(progress);
  CDP_INIT(asked);
  for (int steps = 1;; steps++) {
    cdp_status status = cdp_job_step(job, budget, &progress);
    CHECK(status == CDP_OK || status == CDP_END);
    CHECK(progress.bytes_done >= before);
    CHECK(progress.bytes_total == 0 || progress.bytes_done <= progress.bytes_total);
    before = progress.bytes_done;
    OK(cdp_job_progress_get(job, &asked));
    CHECK(asked.bytes_done == progress.bytes_done && asked.flags == progress.flags);
    if (status == CDP_END) {
      CHECK(progress.flags == CDP_JOB_DONE && progress.wait_ns == 0 && progress.left_ns == 0);
      EXPECT(CDP_END, cdp_job_step(job, budget, NULL));
      return steps;
    }
    CHECK(progress.flags == 0 && steps < 1000000);
  }
}

static void resync(cdp_store *store) {
  cdp_source from = source();
  cdp_job *job = NULL, *other = NULL;
  cdp_resync_report report;
  cdp_retention_report wrong;
  cdp_job_progress progress;
  cdp_volume *volume = NULL;
  unsigned char block[BLOCK] = {0};
  uint64_t seq;
  int before = freed;
  CDP_INIT(report);
  CDP_INIT(wrong);
  CDP_INIT(progress);
  disk_write(0, 1, 3 << 20);
  disk_write(DISK - BLOCK, 2, BLOCK);
  OK(cdp_resync_start(store, NULL, &from, NULL, &job));
  /* The volume is spoken for. */
  OK(cdp_volume_open(store, NULL, &volume));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_write(volume, 0, block, BLOCK, 0, &seq));
  EXPECT(CDP_ERR_EXISTS, cdp_resync_start(store, NULL, &from, NULL, &other));
  CHECK(other == NULL && freed == before + 1);
  /* Closed behind its first piece, it is gone on with by the next. */
  OK(cdp_job_step(job, 1, &progress));
  CHECK(progress.bytes_done == 1 << 20 && progress.bytes_total == DISK && progress.left_ns != UINT64_MAX);
  OK(cdp_job_close(&job));
  CHECK(job == NULL && freed == before + 2);
  OK(cdp_volume_write(volume, 0, disk, BLOCK, 0, &seq));
  disk_write(8 << 20, 3, BLOCK);
  OK(cdp_resync_start(store, NULL, &from, NULL, &job));
  CHECK(finish(job, 0) > 3);
  OK(cdp_job_resync_report(job, &report));
  CHECK(report.bytes_left == 0 && report.bytes_different > 0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_retention_report(job, &wrong));
  /* It has ended: writes go on before it is closed. */
  OK(cdp_volume_write(volume, 0, disk, BLOCK, 0, &seq));
  OK(cdp_job_close(&job));
  same_as_disk(store);
  /* A source that fails ends the job, and another one goes on. */
  disk_write(4 << 20, 4, BLOCK);
  fail_reads = 1;
  OK(cdp_resync_start(store, NULL, &from, NULL, &job));
  cdp_status status = CDP_OK;
  for (int steps = 0; status == CDP_OK && steps < 100000; steps++) status = cdp_job_step(job, 0, NULL);
  CHECK(status == CDP_ERR_IO && cdp_last_error_errno() == EREMOTEIO);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_step(job, 0, NULL));
  OK(cdp_job_resync_report(job, &report));
  CHECK(report.bytes_left > 0);
  OK(cdp_job_close(&job));
  fail_reads = 0;
  OK(cdp_resync_start(store, NULL, &from, NULL, &job));
  finish(job, UINT64_MAX);
  OK(cdp_job_close(&job));
  same_as_disk(store);
  OK(cdp_volume_close(&volume));
}

/* Where a job has to wait it says for how long, and does not sleep. */
static void paced(cdp_store *store) {
  cdp_source from = source();
  cdp_resync_options options;
  cdp_job_progress progress;
  cdp_job *job = NULL;
  CDP_INIT(options);
  CDP_INIT(progress);
  options.mode = CDP_RESYNC_FULL;
  options.bytes_per_second_max = 1 << 10;
  OK(cdp_resync_start(store, NULL, &from, &options, &job));
  OK(cdp_job_step(job, UINT64_MAX, &progress));
  CHECK(progress.bytes_done == 1 << 20 && progress.wait_ns > 0);
  OK(cdp_job_step(job, UINT64_MAX, &progress));
  CHECK(progress.bytes_done == 1 << 20 && progress.wait_ns > 0);
  OK(cdp_job_cancel(job));
  EXPECT(CDP_END, cdp_job_step(job, UINT64_MAX, &progress));
  CHECK(progress.flags == CDP_JOB_CANCELLED);
  OK(cdp_job_close(&job));
  same_as_disk(store);
}

static void *cancel(void *of) {
  OK(cdp_job_cancel(of));
  return NULL;
}

static void verify(cdp_store *store) {
  cdp_source from = source();
  cdp_job *job = NULL, *copy;
  cdp_verify_report report;
  cdp_verify_options repair, unknown;
  cdp_job_progress progress;
  cdp_extent_iter *iter = NULL;
  cdp_extent extent;
  pthread_t thread;
  CDP_INIT(report);
  CDP_INIT(progress);
  CDP_INIT(repair);
  CDP_INIT(unknown);
  repair.flags = CDP_VERIFY_REPAIR;
  unknown.flags = 1u << 9;
  disk_write(5 << 20, 6, BLOCK);
  OK(cdp_verify_start(store, "disk", &from, NULL, &job));
  CHECK(finish(job, 1 << 20) >= DISK >> 20);
  OK(cdp_job_verify_report(job, &report));
  CHECK(report.flags == CDP_VERIFY_COMPLETE && report.bytes_different == BLOCK && report.bytes_compared == DISK);
  OK(cdp_job_verify_extents(job, &iter));
  OK(cdp_extent_iter_next(iter, &extent));
  CHECK(extent.offset == 5 << 20 && extent.len == BLOCK);
  EXPECT(CDP_END, cdp_extent_iter_next(iter, &extent));
  OK(cdp_extent_iter_close(&iter));
  copy = job;
  OK(cdp_job_close(&job));
  EXPECT(CDP_ERR_CLOSED, cdp_job_step(copy, 0, NULL));
  OK(cdp_verify_start(store, NULL, &from, &repair, &job));
  finish(job, 0);
  OK(cdp_job_verify_report(job, &report));
  CHECK(report.flags == (CDP_VERIFY_COMPLETE | CDP_VERIFY_REPAIRED));
  OK(cdp_job_close(&job));
  same_as_disk(store);
  /* Cancelled from another thread it repairs nothing. */
  disk_write(5 << 20, 7, BLOCK);
  repair.bytes_per_second_max = 1 << 10;
  OK(cdp_verify_start(store, NULL, &from, &repair, &job));
  OK(cdp_job_step(job, 0, NULL));
  CHECK(pthread_create(&thread, NULL, cancel, job) == 0 && pthread_join(thread, NULL) == 0);
  EXPECT(CDP_END, cdp_job_step(job, 0, &progress));
  CHECK(progress.flags == CDP_JOB_CANCELLED);
  OK(cdp_job_verify_report(job, &report));
  CHECK(report.flags == 0);
  OK(cdp_job_close(&job));
  disk_write(5 << 20, 6, BLOCK);
  same_as_disk(store);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_verify_start(store, "none", &from, NULL, &job));
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_verify_start(store, NULL, &from, &unknown, &job));
  CHECK(job == NULL);
}

static void check(cdp_store *store) {
  cdp_job *job = NULL;
  char text[64];
  OK(cdp_store_flush(store, NULL));
  OK(cdp_check_start(store, CDP_CHECK_DEEP, &job));
  finish(job, 0);
  EXPECT(CDP_END, cdp_job_damage_at(job, 0, text, sizeof text));
  OK(cdp_job_close(&job));
  OK(cdp_job_close(&job));
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_check_start(store, 1u << 5, &job));
}

static void restored(cdp_store *store, const char *path) {
  static unsigned char found[DISK];
  cdp_volume *volume = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_restore *restore = NULL, *copy;
  cdp_job *job = NULL;
  cdp_point point;
  FILE *file;
  OK(cdp_resolve(store, "latest", &point));
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_snapshot_open(volume, point.seq, 0, &snapshot));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_restore_into_job(&restore, &job));
  OK(cdp_restore_start_file(snapshot, path, &restore));
  OK(cdp_restore_step(restore, 0, NULL));
  /* From here on threads read ahead, for the time of each step; whatever their number, the same is restored. */
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_restore_set_readers(NULL, 1));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_restore_set_readers(restore, 65));
  OK(cdp_restore_set_readers(restore, 3));
  OK(cdp_restore_step(restore, 4 << 20, NULL));
  OK(cdp_restore_set_readers(restore, 0));
  OK(cdp_restore_step(restore, 0, NULL));
  OK(cdp_restore_set_readers(restore, 64));
  copy = restore;
  OK(cdp_restore_into_job(&restore, &job));
  CHECK(restore == NULL);
  EXPECT(CDP_ERR_CLOSED, cdp_restore_step(copy, 0, NULL));
  finish(job, 0);
  OK(cdp_job_close(&job));
  file = fopen(path, "rb");
  CHECK(file != NULL && fread(found, 1, DISK, file) == DISK);
  fclose(file);
  CHECK(memcmp(found, disk, DISK) == 0);
  OK(cdp_snapshot_close(&snapshot));
  OK(cdp_volume_close(&volume));
}

static void retention(cdp_store *store) {
  cdp_volume *volume = NULL;
  cdp_job *job = NULL;
  cdp_retention_report report;
  cdp_point before, after;
  uint64_t seq;
  CDP_INIT(report);
  OK(cdp_volume_open(store, NULL, &volume));
  for (int round = 0; round < 64; round++)
    OK(cdp_volume_write(volume, (uint64_t)(round % 8) << 20, disk, 1 << 20, CDP_WRITE_FUA, &seq));
  OK(cdp_volume_write(volume, 0, disk, 8 << 20, CDP_WRITE_FUA, &seq));
  OK(cdp_resolve(store, "latest", &before));
  OK(cdp_retention_set(store, "max_age = \"1s\"\n"));
  OK(cdp_retention_start(store, before.time_ns + 5000000000u, &job));
  EXPECT(CDP_END, cdp_job_retention_report(job, &report));
  OK(cdp_job_step(job, 0, NULL));
  OK(cdp_job_retention_report(job, &report));
  CHECK(report.drop_points > 0);
  /* Between its steps writes go on, and another run. */
  OK(cdp_volume_write(volume, 0, disk, BLOCK, 0, &seq));
  OK(cdp_retention_run(store, before.time_ns + 6000000000u, NULL));
  finish(job, 0);
  OK(cdp_job_retention_report(job, &report));
  CHECK(report.bytes_freed > 0);
  OK(cdp_job_close(&job));
  OK(cdp_resolve(store, "latest", &after));
  CHECK(after.seq > before.seq);
  same_as_disk(store);
  OK(cdp_volume_close(&volume));
}

static void tapped(cdp_store *store) {
  cdp_source from = source();
  cdp_tap_options options;
  cdp_tap_stats stats;
  cdp_resync_options how;
  cdp_resync_report report;
  cdp_resync_schedule schedule;
  cdp_hours hours[2] = {{0, 3600000000000u}, {82800000000000u, 0}};
  const char *first[1] = {"disk"};
  cdp_tap *tap = NULL;
  cdp_job *job = NULL, *left;
  CDP_INIT(options);
  CDP_INIT(stats);
  CDP_INIT(how);
  CDP_INIT(report);
  CDP_INIT(schedule);
  options.source_state = CDP_SOURCE_EQUAL;
  OK(cdp_tap_open(store, NULL, &from, &options, &tap));
  OK(cdp_tap_stats_get(tap, &stats));
  CHECK(stats.resync_left_ns == UINT64_MAX);
  how.mode = CDP_RESYNC_FULL;
  OK(cdp_tap_resync_start(tap, &how, &job));
  finish(job, 0);
  OK(cdp_job_resync_report(job, &report));
  CHECK(report.mode == CDP_RESYNC_FULL && report.bytes_left == 0 && report.bytes_compared >= DISK);
  OK(cdp_job_close(&job));
  /* By the schedule nothing goes on for an hour; what is asked for does. */
  schedule.delay_ns = 3600000000000u;
  schedule.first = first;
  schedule.first_count = 1;
  schedule.volumes_at_once = 1;
  OK(cdp_store_set_resync_schedule(store, &schedule));
  disk_write(0, 9, BLOCK);
  OK(cdp_tap_mark(tap, 0, BLOCK, CDP_GAP_HOST));
  for (int steps = 0; steps < 200; steps++) CHECK(cdp_store_step(store, 0) >= 0);
  OK(cdp_tap_stats_get(tap, &stats));
  CHECK(stats.is_whole == 0 && stats.dirty_bytes > 0);
  schedule.bytes_per_second_max = 1u << 30;
  schedule.latency_max_ns = 1000000;
  OK(cdp_store_note_latency(store, 500000));
  schedule.hours = hours;
  schedule.hours_count = 2;
  OK(cdp_store_set_resync_schedule(store, &schedule));
  hours[0].to_ns = 0;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_set_resync_schedule(store, &schedule));
  schedule.reserved = 1;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_store_set_resync_schedule(store, &schedule));
  how.mode = CDP_RESYNC_MAP;
  OK(cdp_tap_resync_start(tap, &how, &job));
  finish(job, 0);
  OK(cdp_tap_stats_get(tap, &stats));
  CHECK(stats.is_whole == 1);
  OK(cdp_job_close(&job));
  OK(cdp_store_set_resync_schedule(store, NULL));
  disk_write(0, 10, BLOCK);
  OK(cdp_tap_mark(tap, 0, BLOCK, CDP_GAP_HOST));
  for (int steps = 0; stats.is_whole == 0 || stats.dirty_bytes > 0 || steps == 0; steps++) {
    CHECK(steps < 100000 && cdp_store_step(store, 0) >= 0);
    OK(cdp_tap_stats_get(tap, &stats));
  }
  /* The tap ends, and the job with it. */
  OK(cdp_tap_resync_start(tap, NULL, &job));
  OK(cdp_tap_close(&tap));
  CHECK(cdp_job_step(job, UINT64_MAX, NULL) != CDP_OK);
  OK(cdp_job_close(&job));
  /* So does a job that is left open when the store is closed. */
  OK(cdp_resync_start(store, NULL, &from, NULL, &left));
  OK(cdp_job_step(left, 0, NULL));
  OK(cdp_store_close(&store));
  EXPECT(CDP_ERR_CLOSED, cdp_job_step(left, 0, NULL));
  EXPECT(CDP_ERR_CLOSED, cdp_job_close(&left));
}

struct steady {
  cdp_job *job;
  cdp_status status;
};

static void *stepping(void *of) {
  struct steady *steady = of;
  steady->status = cdp_job_step(steady->job, UINT64_MAX, NULL);
  return NULL;
}

/* One thread steps, and others cancel and close it. */
static void beside(cdp_store *store) {
  for (int round = 0; round < 20; round++) {
    cdp_source from = source();
    cdp_resync_options options;
    struct steady steady = {NULL, CDP_OK};
    pthread_t thread;
    cdp_job *job = NULL;
    CDP_INIT(options);
    options.mode = CDP_RESYNC_FULL;
    OK(cdp_resync_start(store, NULL, &from, &options, &job));
    steady.job = job;
    CHECK(pthread_create(&thread, NULL, stepping, &steady) == 0);
    if (round % 2 == 0) OK(cdp_job_cancel(job));
    OK(cdp_job_close(&job));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(steady.status == CDP_OK || steady.status == CDP_END || steady.status == CDP_ERR_CLOSED);
    same_as_disk(store);
  }
}

int main(int argc, char **argv) {
  char path[512], file[512];
  cdp_store *store = new_store(in_directory(path, sizeof path, argc, argv, "store"), DISK);
  int freed_before;
  in_directory(file, sizeof file, argc, argv, "restored");
  resync(store);
  paced(store);
  verify(store);
  check(store);
  restored(store, file);
  beside(store);
  retention(store);
  freed_before = freed;
  tapped(store);
  CHECK(freed == freed_before + 2);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_step(NULL, 0, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_cancel(NULL));
  return 0;
}
