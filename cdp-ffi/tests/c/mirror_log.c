/* Mirror sets: what a host is told of them in its log, copies that are written beside each other, and a range that is rewritten by hand. */
#include "memory_copy.h"

enum { DISK = 1 << 20, LINES = 64 };

struct log {
  int lines, freed;
  uint32_t levels[LINES];
  char text[LINES][256];
  cdp_mirror *mirror;
};

static void take(void *userdata, uint32_t level, const char *message, size_t len) {
  struct log *log = userdata;
  CHECK(strlen(message) == len && len > 0 && log->lines < LINES);
  log->levels[log->lines] = level;
  snprintf(log->text[log->lines], sizeof log->text[0], "%s", message);
  log->lines++;
  if (log->mirror != NULL) EXPECT(CDP_ERR_BUSY, cdp_mirror_flush(log->mirror));
}
static void done(void *userdata) { ((struct log *)userdata)->freed++; }

/* The line that was written last is of this level and says this. */
static void last_line(const struct log *log, int lines, uint32_t level, const char *part) {
  CHECK(log->lines == lines && log->levels[lines - 1] == level);
  CHECK(strstr(log->text[lines - 1], part) != NULL);
}

static int32_t find(void *userdata, uint32_t number, const char *locator, cdp_copy **copy_out) {
  (void)userdata;
  if (number == 1) return -ENODEV;
  *copy_out = copy_of(locator[0] - 'a');
  return 0;
}

static void repair(cdp_mirror *mirror) {
  cdp_mirror_repair *job = NULL;
  OK(cdp_mirror_repair_start(mirror, NULL, &job));
  EXPECT(CDP_END, cdp_mirror_repair_step(job, UINT64_MAX, NULL));
  OK(cdp_mirror_repair_close(&job));
}

int main(int argc, char **argv) {
  static struct log log;
  static unsigned char block[BLOCK];
  char path[512];
  cdp_log_sink sink;
  cdp_copy_opener opener;
  cdp_mirror_options options;
  cdp_mirror_create_options create;
  cdp_mirror_status *status = NULL;
  cdp_copy_info info;
  cdp_new_copy copies[2];
  cdp_copy *held[2];
  cdp_mirror *mirror = NULL;
  in_directory(path, sizeof path, argc, argv, "set");
  CDP_INIT(sink);
  CDP_INIT(opener);
  CDP_INIT(options);
  CDP_INIT(create);
  CDP_INIT(info);
  for (int at = 0; at < COPIES; at++) {
    pthread_mutex_init(&memory[at].lock, NULL);
    memory[at].bytes = DISK;
    memory[at].data = calloc(1, DISK);
    CHECK(memory[at].data != NULL);
  }
  held[0] = copies[0].copy = copy_of(0);
  held[1] = copies[1].copy = copy_of(1);
  copies[0].locator = "a";
  copies[1].locator = "b";
  sink.userdata = &log;
  sink.free_userdata = done;
  opener.open = find;
  create.bytes = DISK;
  create.open = &options;
  options.log = &sink;

  /* What is wrong is refused, and what was lent comes back. */
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(path, &create, copies, 2, &mirror));
  CHECK(log.freed == 1);
  sink.log = take;
  options.patience_ns = 1;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(path, &create, copies, 2, &mirror));
  options.flags = 1u << 5;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_mirror_create(path, &create, copies, 2, &mirror));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(path, &create, copies, 2, NULL));
  CHECK(log.freed == 4 && log.lines == 0 && mirror == NULL);

  /* Written by threads of their own. */
  options.flags = CDP_MIRROR_THREADS;
  options.patience_ns = 5000000000;
  options.behind_bytes_max = 1 << 20;
  create.ack = CDP_ACK_ALL;
  OK(cdp_mirror_create(path, &create, copies, 2, &mirror));
  last_line(&log, 1, CDP_LOG_INFO, "was opened");
  for (int at = 0; at < 2; at++) OK(cdp_copy_close(&held[at]));
  log.mirror = mirror;
  fill(block, BLOCK, 5);
  for (uint64_t at = 0; at < 32; at++) OK(cdp_mirror_write(mirror, at * BLOCK, block, BLOCK));
  OK(cdp_mirror_flush(mirror));
  CHECK(is_all(memory[0].data, 32 * BLOCK, 5) && is_all(memory[1].data, 32 * BLOCK, 5));
  OK(cdp_mirror_status_open(mirror, &status));
  OK(cdp_mirror_status_copy_at(status, 1, &info));
  CHECK(info.behind_bytes == 0 && strcmp(info.locator, "b") == 0);
  OK(cdp_mirror_status_close(&status));

  /* What happens is a line. */
  OK(cdp_mirror_offline(mirror, 1));
  last_line(&log, 2, CDP_LOG_INFO, "copy 1 was taken out of service");
  OK(cdp_mirror_online(mirror, 1, NULL, NULL));
  last_line(&log, 3, CDP_LOG_INFO, "copy 1 takes writes again");
  memory[1].fail_writes = 1;
  EXPECT(CDP_ERR_TOO_FEW_COPIES, cdp_mirror_write(mirror, 0, block, BLOCK));
  last_line(&log, 4, CDP_LOG_WARNING, "copy 1 failed");
  memory[1].fail_writes = 0;
  OK(cdp_mirror_online(mirror, 1, NULL, NULL));
  repair(mirror);
  last_line(&log, 6, CDP_LOG_INFO, "copy 1 lacks nothing");

  /* A range that is known to be damaged is rewritten, whatever the copy reads. */
  memset(memory[1].data + 2 * BLOCK, 99, 2 * BLOCK);
  OK(cdp_mirror_repair_range(mirror, 1, 2 * BLOCK, BLOCK));
  last_line(&log, 7, CDP_LOG_WARNING, "copy 1: 4096 bytes at 8192 were rewritten");
  CHECK(is_all(memory[1].data + 2 * BLOCK, BLOCK, 5) && is_all(memory[1].data + 3 * BLOCK, BLOCK, 99));
  OK(cdp_mirror_repair_range(mirror, 1, 3 * BLOCK + 512, 512));
  CHECK(is_all(memory[1].data + 3 * BLOCK, BLOCK, 5));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_repair_range(mirror, 9, 0, BLOCK));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_mirror_repair_range(mirror, 1, DISK, BLOCK));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_mirror_repair_range(mirror, 1, UINT64_MAX - 511, BLOCK));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_repair_range(NULL, 1, 0, BLOCK));
  memory[0].fail_reads = 1;
  EXPECT(CDP_ERR_IO, cdp_mirror_repair_range(mirror, 1, 0, BLOCK));
  memory[0].fail_reads = 0;
  CHECK(log.lines == 8 && log.freed == 4);
  log.mirror = NULL;
  OK(cdp_mirror_close(&mirror));
  last_line(&log, 9, CDP_LOG_INFO, "was closed");
  CHECK(log.freed == 5);

  /* An opening says what it has found; a dry run says nothing. */
  memset(&log, 0, sizeof log);
  CDP_INIT(options);
  options.opener = &opener;
  options.log = &sink;
  sink.level_max = CDP_LOG_WARNING;
  OK(cdp_mirror_examine(path, &options, &status));
  CHECK(log.lines == 0 && log.freed == 1);
  OK(cdp_mirror_status_close(&status));
  OK(cdp_mirror_open(path, &options, &mirror));
  last_line(&log, 1, CDP_LOG_WARNING, "copy 1 is missing: open failed");
  OK(cdp_mirror_close(&mirror));
  CHECK(log.lines == 1 && log.freed == 2);
  for (int at = 0; at < COPIES; at++) free(memory[at].data);
  return 0;
}
