/* Scrub: payload that rotted on the storage is mended from a source of the host or from a mirror set, at once and as a job. */
#include "memory_storage.h"

enum { DISK = 2 << 20 };

static struct host host;
static unsigned char disk[DISK];
static int freed;

static int32_t disk_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  memcpy(buf, disk + offset, len);
  return 0;
}
static void disk_free(void *userdata) { ++*(int *)userdata; }

static cdp_source source(void) {
  cdp_source made;
  CDP_INIT(made);
  made.userdata = &freed;
  made.read = disk_read;
  made.free_userdata = disk_free;
  return made;
}

/* Turns a bit in every place of the storage that holds this block of the disk; returns how many there are. */
static int rot(uint64_t offset) {
  int places = 0;
  for (int at = 0; at < EXTENTS; at++)
    for (uint64_t from = 0; from + BLOCK <= host.extents[at].bytes; from += BLOCK)
      if (memcmp(host.extents[at].data + from, disk + offset, BLOCK) == 0) {
        host.extents[at].data[from + 700] ^= 4;
        places++;
      }
  return places;
}

static uint64_t damage(cdp_store *store) {
  uint64_t count = 77;
  OK(cdp_store_check(store, CDP_CHECK_DEEP, NULL, &count, NULL, 0));
  return count;
}

static int32_t end(void *userdata, uint64_t done, uint64_t total) {
  (void)userdata;
  (void)done;
  (void)total;
  return 1;
}

int main(int argc, char **argv) {
  static unsigned char found[BLOCK];
  char path[512], text[256] = "", locator[512];
  cdp_storage_calls calls = calls_of(&host);
  cdp_storage *storage = NULL;
  cdp_open_options open;
  cdp_create_options create_options;
  cdp_mirror_create_options mirror_options;
  cdp_new_copy copies[1];
  cdp_store *store = NULL;
  cdp_volume *volume = NULL;
  cdp_mirror *mirror = NULL;
  cdp_job *job = NULL;
  cdp_scrub_report report;
  cdp_resync_report other;
  cdp_watch watch;
  cdp_job_progress progress;
  cdp_scrub_source sources[2];
  cdp_source from = source();
  int status;
  in_directory(path, sizeof path, argc, argv, "mirror");
  in_directory(locator, sizeof locator, argc, argv, "copy");
  pthread_mutex_init(&host.lock, NULL);
  CDP_INIT(open);
  CDP_INIT(create_options);
  CDP_INIT(report);
  CDP_INIT(other);
  CDP_INIT(watch);
  CDP_INIT(progress);
  memset(sources, 0, sizeof sources);
  for (size_t at = 0; at < DISK; at++) disk[at] = (unsigned char)(at * 31 + 1);
  for (uint64_t at = 0; at < DISK; at += BLOCK) memcpy(disk + at, &at, sizeof at);
  OK(cdp_storage_open_custom(&calls, &storage));
  open.storage = storage;
  open.segment_bytes = 4 << 20;
  create_options.bytes = DISK;
  create_options.open = &open;
  OK(cdp_store_create(NULL, &create_options, &store));
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_write(volume, 0, disk, DISK, CDP_WRITE_FUA, NULL));
  OK(cdp_store_close(&store));
  OK(cdp_store_open(NULL, &open, &store));
  OK(cdp_volume_open(store, NULL, &volume));

  /* What is sound stays as it is; without a source it is a check. */
  OK(cdp_store_scrub(store, NULL, 0, NULL, &report));
  CHECK(report.flags == CDP_SCRUB_COMPLETE && report.damage_found == 0 && report.versions_repaired == 0);
  CHECK(rot(5 * BLOCK) == 1 && rot(9 * BLOCK) == 1);
  CHECK(damage(store) == 2);
  OK(cdp_store_scrub(store, NULL, 0, NULL, &report));
  CHECK(report.damage_found == 2 && report.damage_left == 2);

  /* What is wrong is refused, and what was lent comes back. */
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_scrub(store, sources, 1, NULL, &report));
  sources[0].source = &from;
  sources[1].source = &from;
  sources[1].volume = "none";
  EXPECT(CDP_ERR_NOT_FOUND, cdp_store_scrub(store, sources, 2, NULL, &report));
  CHECK(freed == 2);
  sources[1].mirror = (cdp_mirror *)(void *)&report;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_scrub_start(store, sources, 2, &job));
  CHECK(freed == 4 && job == NULL);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_scrub(store, NULL, 1, NULL, &report));

  /* Ended before the check is done it mends nothing. */
  watch.progress = end;
  OK(cdp_store_scrub(store, sources, 1, &watch, &report));
  CHECK(report.flags == 0 && freed == 5 && damage(store) == 2);

  /* A source that has the content mends it. */
  OK(cdp_store_scrub(store, sources, 1, NULL, &report));
  CHECK(report.flags == CDP_SCRUB_COMPLETE && report.damage_found == 2 && report.damage_left == 0);
  CHECK(report.versions_repaired == 2 && report.bytes_repaired == 2 * BLOCK && freed == 6);
  CHECK(damage(store) == 0);
  OK(cdp_volume_read(volume, 5 * BLOCK, found, BLOCK));
  CHECK(memcmp(found, disk + 5 * BLOCK, BLOCK) == 0);

  /* As a job, with a mirror set as the source, which has only one of the two. */
  CDP_INIT(mirror_options);
  memset(copies, 0, sizeof copies);
  CDP_INIT(copies[0]);
  mirror_options.bytes = DISK;
  copies[0].locator = locator;
  {
    cdp_copy *copy = NULL;
    OK(cdp_copy_create_file(locator, DISK, &copy));
    OK(cdp_copy_close(&copy));
  }
  OK(cdp_mirror_create(path, &mirror_options, copies, 1, &mirror));
  OK(cdp_mirror_write(mirror, 5 * BLOCK, disk + 5 * BLOCK, BLOCK));
  CHECK(rot(5 * BLOCK) == 1 && rot(9 * BLOCK) == 1);
  memset(sources, 0, sizeof sources);
  sources[0].volume = "disk";
  sources[0].mirror = mirror;
  OK(cdp_scrub_start(store, sources, 1, &job));
  EXPECT(CDP_END, cdp_job_scrub_report(job, &report));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_resync_report(job, &other));
  while ((status = cdp_job_step(job, 0, &progress)) == CDP_OK) CHECK(progress.bytes_done <= progress.bytes_total);
  EXPECT(CDP_END, status);
  OK(cdp_job_scrub_report(job, &report));
  CHECK(report.flags == CDP_SCRUB_COMPLETE && report.damage_found == 2 && report.damage_left == 1);
  CHECK(report.versions_repaired == 1 && report.versions_lost == 1);
  OK(cdp_job_damage_at(job, 0, text, sizeof text));
  CHECK(strlen(text) > 10);
  EXPECT(CDP_END, cdp_job_damage_at(job, 1, text, sizeof text));
  OK(cdp_job_close(&job));
  OK(cdp_mirror_close(&mirror));
  CHECK(damage(store) == 1);

  /* Held to a rate, a scrub and a check wait in between, and do nothing meanwhile; without it they come to their end, and find the same. */
  for (int kind = 0; kind < 2; kind++) {
    uint64_t before;
    if (kind == 0)
      OK(cdp_scrub_start(store, NULL, 0, &job));
    else
      OK(cdp_check_start(store, CDP_CHECK_DEEP, &job));
    OK(cdp_job_limit_rate(job, 1));
    while ((status = cdp_job_step(job, 0, &progress)) == CDP_OK && progress.wait_ns == 0) {
    }
    EXPECT(CDP_OK, status);
    before = progress.bytes_done;
    for (int again = 0; again < 3; again++) OK(cdp_job_step(job, UINT64_MAX, &progress));
    CHECK(progress.wait_ns > 0 && progress.bytes_done == before && before < progress.bytes_total);
    OK(cdp_job_limit_rate(job, 0));
    EXPECT(CDP_END, cdp_job_step(job, UINT64_MAX, &progress));
    CHECK(progress.flags == CDP_JOB_DONE);
    OK(cdp_job_damage_at(job, 0, text, sizeof text));
    EXPECT(CDP_END, cdp_job_damage_at(job, 1, text, sizeof text));
    OK(cdp_job_limit_rate(job, 1));
    OK(cdp_job_close(&job));
  }
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_limit_rate(job, 1));
  OK(cdp_verify_start(store, NULL, &from, NULL, &job));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_limit_rate(job, 1));
  OK(cdp_job_close(&job));
  OK(cdp_store_close(&store));
  OK(cdp_storage_close(&storage));
  CHECK(host.freed == 1);
  for (int at = 0; at < EXTENTS; at++) free(host.extents[at].data);
  return 0;
}
