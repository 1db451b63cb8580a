/* The log of the host: what it is told and at which level, what it must not do, and that what it lent comes back once. */
#include "check.h"

enum { DISK = 1 << 20, LINES = 64 };

struct log {
  int lines, freed;
  uint32_t levels[LINES];
  char text[LINES][256];
  cdp_store *store;
};

static void take(void *userdata, uint32_t level, const char *message, size_t len) {
  struct log *log = userdata;
  CHECK(strlen(message) == len && len > 0 && strchr(message, '\n') == NULL && log->lines < LINES);
  CHECK(level >= CDP_LOG_ERROR && level <= CDP_LOG_INFO);
  log->levels[log->lines] = level;
  snprintf(log->text[log->lines], sizeof log->text[0], "%s", message);
  log->lines++;
  if (log->store != NULL) EXPECT(CDP_ERR_BUSY, cdp_store_flush(log->store, NULL));
}
static void free_(void *userdata) { ((struct log *)userdata)->freed++; }

static int has_line(const struct log *log, uint32_t level, const char *part) {
  for (int at = 0; at < log->lines; at++)
    if (log->levels[at] == level && strstr(log->text[at], part) != NULL) return 1;
  return 0;
}

static int32_t read_zeroes(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata, (void)offset;
  memset(buf, 0, len);
  return 0;
}

int main(int argc, char **argv) {
  static struct log log;
  static unsigned char block[BLOCK];
  char path[256], copy[256], command[600];
  cdp_log_sink sink;
  cdp_open_options options;
  cdp_create_options create;
  cdp_store *store = NULL;
  cdp_volume *volume = NULL;
  cdp_tap *tap = NULL;
  cdp_source source;
  cdp_event event;
  int events = 0;

  in_directory(path, sizeof path, argc, argv, "store");
  in_directory(copy, sizeof copy, argc, argv, "copy");
  CDP_INIT(sink);
  CDP_INIT(options);
  CDP_INIT(create);
  CDP_INIT(source);
  CDP_INIT(event);
  sink.userdata = &log;
  sink.free_userdata = free_;
  options.log = &sink;
  create.bytes = DISK;
  create.open = &options;
  /* What is wrong is said, and what was lent comes back at once. */
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create(path, &create, &store));
  CHECK(log.freed == 1);
  sink.log = take;
  sink.level_max = 4;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_create(path, &create, &store));
  CHECK(log.freed == 2);
  sink.level_max = 0;
  EXPECT(CDP_ERR_NOT_FOUND, cdp_store_open(path, &options, &store));
  CHECK(log.freed == 3 && log.lines == 0 && store == NULL);

  OK(cdp_store_create(path, &create, &store));
  CHECK(log.lines == 1 && has_line(&log, CDP_LOG_INFO, "was opened"));
  OK(cdp_volume_open(store, NULL, &volume));
  fill(block, BLOCK, 1);
  OK(cdp_volume_write(volume, 0, block, BLOCK, CDP_WRITE_FUA, NULL));
  /* Events are lines when they happen, and are in the row too. */
  source.read = read_zeroes;
  {
    cdp_tap_options options_of_tap;
    CDP_INIT(options_of_tap);
    options_of_tap.source_state = CDP_SOURCE_EQUAL;
    OK(cdp_tap_open(store, NULL, &source, &options_of_tap, &tap));
  }
  log.store = store;
  OK(cdp_tap_mark(tap, 0, BLOCK, CDP_GAP_HOST));
  while (!has_line(&log, CDP_LOG_INFO, "captured whole again")) (void)cdp_store_step(store, 0);
  CHECK(has_line(&log, CDP_LOG_WARNING, "a gap opened"));
  log.store = NULL;
  while (cdp_event_next(store, &event, NULL) == CDP_OK) {
    events++;
    CHECK(has_line(&log, event.kind == CDP_EVENT_GAP_OPENED ? CDP_LOG_WARNING : CDP_LOG_INFO, event.text));
  }
  CHECK(events == log.lines - 1);
  /* A copy of a store that is open is as after a crash. */
  OK(cdp_store_flush(store, NULL));
  snprintf(command, sizeof command, "cp -r %s %s", path, copy);
  CHECK(system(command) == 0 && log.freed == 3);
  OK(cdp_tap_close(&tap));
  OK(cdp_store_close(&store));
  CHECK(log.freed == 4 && has_line(&log, CDP_LOG_INFO, "was closed"));

  log.lines = 0;
  sink.level_max = CDP_LOG_WARNING;
  OK(cdp_store_open(copy, &options, &store));
  CHECK(log.lines == 1 && has_line(&log, CDP_LOG_WARNING, "did not close it in good order"));
  /* The tap of then did not end: what was written without it is a gap. */
  OK(cdp_store_close(&store));
  CHECK(log.lines == 2 && has_line(&log, CDP_LOG_WARNING, "a gap opened") && log.freed == 5);
  return 0;
}
