/* Seeding: a volume goes to another store as a set of files, whole and then by what changed, at once and as jobs; and what does not fit. */
#include "check.h"

enum { DISK = 8 << 20 };

static void finish(cdp_job *job) {
  cdp_status status;
  while ((status = cdp_job_step(job, 0, NULL)) == CDP_OK) {
  }
  EXPECT(CDP_END, status);
}

static void same(cdp_store *one, cdp_store *other, const char *name) {
  static unsigned char left[DISK], right[DISK];
  cdp_volume *volume = NULL;
  OK(cdp_volume_open(one, NULL, &volume));
  OK(cdp_volume_read(volume, 0, left, DISK));
  OK(cdp_volume_close(&volume));
  OK(cdp_volume_open(other, name, &volume));
  OK(cdp_volume_read(volume, 0, right, DISK));
  OK(cdp_volume_close(&volume));
  CHECK(memcmp(left, right, DISK) == 0);
}

static int32_t end(void *userdata, uint64_t done, uint64_t total) {
  (void)done;
  (void)total;
  return ++*(int *)userdata >= 2;
}

int main(int argc, char **argv) {
  static unsigned char data[DISK / 2];
  char path[512];
  cdp_store *here = new_store(NULL, DISK), *there = new_store(NULL, 1 << 20);
  cdp_volume *volume = NULL;
  cdp_storage *memory = NULL, *quick = NULL;
  cdp_seed *seed = NULL, *more = NULL;
  cdp_seed_info info;
  cdp_export_options options;
  cdp_export_report report;
  cdp_import_options how;
  cdp_import_report imported;
  cdp_job *job = NULL;
  cdp_watch watch;
  cdp_point first, second;
  int told = 0;
  CDP_INIT(info);
  CDP_INIT(options);
  CDP_INIT(report);
  CDP_INIT(how);
  CDP_INIT(imported);
  CDP_INIT(watch);
  in_directory(path, sizeof path, argc, argv, "set");
  for (size_t at = 0; at < sizeof data; at++) data[at] = (unsigned char)(at * 7 + at / 509);
  OK(cdp_volume_open(here, NULL, &volume));
  OK(cdp_volume_write(volume, 1 << 20, data, sizeof data, CDP_WRITE_FUA, NULL));
  OK(cdp_resolve(here, "latest", &first));

  /* A whole set in a directory: ended early, gone on with, complete, and gone on with once more. */
  watch.userdata = &told;
  watch.progress = end;
  options.flags = CDP_EXPORT_PLAIN;
  options.file_bytes_max = 4 << 20;
  OK(cdp_volume_export(volume, first.seq, path, NULL, &options, &watch, &report));
  CHECK((report.flags & CDP_EXPORT_COMPLETE) == 0 && told == 2);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_seed_open(path, NULL, &seed));
  OK(cdp_volume_export(volume, first.seq, path, NULL, &options, NULL, &report));
  CHECK(report.flags == (CDP_EXPORT_COMPLETE | CDP_EXPORT_RESUMED) && report.files >= 1);
  CHECK(report.stored_bytes > sizeof data);
  options.file_bytes_max = 1;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_export(volume, first.seq, path, NULL, &options, NULL, &report));
  options.file_bytes_max = 0;
  options.since_seq = 1;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_export(volume, first.seq, path, NULL, &options, NULL, &report));
  options.since_seq = 0;
  EXPECT(CDP_ERR_EXISTS, cdp_volume_export(volume, first.seq, path, NULL, &options, NULL, &report));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_volume_export(volume, first.seq, NULL, NULL, &options, NULL, &report));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_seed_open("/nowhere/at/all", NULL, &seed));

  OK(cdp_seed_open(path, NULL, &seed));
  OK(cdp_seed_info_get(seed, &info));
  CHECK(info.at.seq == first.seq && info.bytes == DISK && info.flags == 0 && strcmp(info.volume, "disk") == 0);
  CHECK(memcmp(&info.set, &report.set, sizeof info.set) == 0 && info.stored_bytes == report.stored_bytes);
  OK(cdp_seed_verify(seed, NULL));
  told = 1;
  OK(cdp_seed_verify(seed, &watch));
  CHECK(told == 2);

  /* It does not fit a volume of another size, and fits a new one. */
  EXPECT(CDP_ERR_SEED_REFUSED, cdp_seed_import(there, seed, NULL, NULL, NULL, &imported));
  CHECK(cdp_status_errno(CDP_ERR_SEED_REFUSED) == 22 && strlen(cdp_last_error_message()) > 20);
  how.bytes_per_second_max = 1u << 30;
  told = 1;
  OK(cdp_seed_import(there, seed, "copy", &how, &watch, &imported));
  CHECK(imported.bytes_left > 0 && strcmp(imported.volume, "copy") == 0);
  OK(cdp_seed_import_start(there, seed, "copy", &how, &job));
  OK(cdp_job_step(job, 0, NULL));
  OK(cdp_job_close(&job));
  OK(cdp_seed_import_start(there, seed, "copy", &how, &job));
  OK(cdp_seed_close(&seed));
  finish(job);
  OK(cdp_job_import_report(job, &imported));
  CHECK(imported.bytes_left == 0 && imported.flags == CDP_IMPORT_RESUMED);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_job_export_report(job, &report));
  OK(cdp_job_close(&job));
  same(here, there, "copy");

  /* What changed since, as a job, to a storage; it fits that volume and no other. */
  OK(cdp_volume_write(volume, 0, data, 1 << 20, CDP_WRITE_FUA, NULL));
  OK(cdp_volume_write_zeroes(volume, 2 << 20, 1 << 20, CDP_WRITE_FUA, NULL));
  OK(cdp_resolve(here, "latest", &second));
  OK(cdp_storage_open_memory(0, &quick));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_storage_open_throttled(quick, 0, &memory));
  OK(cdp_storage_open_throttled(quick, 64 << 20, &memory));
  OK(cdp_storage_close(&quick));
  options.flags = CDP_EXPORT_SINCE;
  options.since_seq = first.seq;
  OK(cdp_export_start(volume, second.seq, NULL, memory, &options, &job));
  finish(job);
  OK(cdp_job_export_report(job, &report));
  CHECK(report.flags == CDP_EXPORT_COMPLETE && report.data_bytes == 1 << 20);
  OK(cdp_job_close(&job));
  OK(cdp_seed_open(NULL, memory, &more));
  OK(cdp_storage_close(&memory));
  OK(cdp_seed_info_get(more, &info));
  CHECK(info.flags == CDP_SEED_SINCE && info.since.seq == first.seq && info.at.seq == second.seq);
  EXPECT(CDP_ERR_SEED_REFUSED, cdp_seed_import(there, more, "disk", NULL, NULL, NULL));
  EXPECT(CDP_ERR_SEED_REFUSED, cdp_seed_import_start(there, more, "none", NULL, &job));
  CHECK(job == NULL);
  OK(cdp_seed_import(there, more, "copy", NULL, NULL, &imported));
  CHECK(imported.bytes_left == 0);
  same(here, there, "copy");
  OK(cdp_seed_import(there, more, "copy", NULL, NULL, &imported));
  CHECK(imported.flags == CDP_IMPORT_RESUMED);
  OK(cdp_seed_close(&more));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_seed_verify(more, NULL));
  OK(cdp_store_close(&here));
  OK(cdp_store_close(&there));
  return 0;
}
