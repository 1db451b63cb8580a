/* nbdkit-cdp-plugin: disks that remember every write, for the stock nbdkit.
 *
 *   nbdkit ./nbdkit-cdp-plugin.so store=DIR [volume=NAME]                     the store is the disk; export "" is the live volume,
 *                                                                             and any other export name is a point of it, read-only
 *   nbdkit ./nbdkit-cdp-plugin.so store=DIR [volume=NAME] point=bookmark:x    one point, read-only, also beside an owner of the store
 *   nbdkit ./nbdkit-cdp-plugin.so file=IMAGE tap=DIR [volume=NAME] [source=]  a plain file, whose writes a tap captures into the store
 *
 * source is what is known of the file: as-recorded (the default; a regular file that was changed without the tap is noticed), equal or unknown;
 * see cdp_tap_options. resync-rate, resync-delay, resync-latency and resync-hours say when and how fast file and volume are made equal again after
 * a gap; see cdp_resync_schedule. throttle holds what is written to the store to so many bytes a second: what a store on a slow disk does.
 */
#include "plugin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *store_path, *tap_path, *file_path;
static const char *volume_name, *point_text;
static uint32_t source_state = CDP_SOURCE_AS_RECORDED;

static cdp_store *store;
static cdp_runner *runner;
static struct tapped *tapped;
static struct resync resync;
static uint64_t throttle;

/* A connection. */
struct connection {
  cdp_volume *volume;
  /* The point that is served; NULL: the live volume. */
  cdp_snapshot *point;
  int64_t bytes;
};

int failed(cdp_status status, const char *what) {
  nbdkit_error("%s: %s: %s", what, cdp_status_name(status), cdp_last_error_message());
  nbdkit_set_error(cdp_status_errno(status));
  return -1;
}

/* What the library says of the store, also from its own threads. */
static void log_line(void *userdata, uint32_t level, const char *message, size_t len) {
  (void)userdata, (void)len;
  if (level == CDP_LOG_INFO) nbdkit_debug("%s", message);
  else nbdkit_error("%s", message);
}

/* A part of the day as HH:MM-HH:MM, in UTC. */
static int parse_hours(const char *value) {
  const uint64_t minute = 60000000000u;
  unsigned from_hour, from_minute, to_hour, to_minute;
  char more;
  if (sscanf(value, "%2u:%2u-%2u:%2u%c", &from_hour, &from_minute, &to_hour, &to_minute, &more) != 4 ||
      from_minute > 59 || to_minute > 59) {
    nbdkit_error("resync-hours is HH:MM-HH:MM, not '%s'", value);
    return -1;
  }
  resync.hours.from_ns = (from_hour * 60 + from_minute) * minute;
  resync.hours.to_ns = (to_hour * 60 + to_minute) * minute;
  resync.has_hours = 1;
  return 0;
}

static int parse_times(const char *key, const char *value, uint64_t unit_ns, uint64_t *to_ns) {
  uint32_t count;
  if (nbdkit_parse_uint32_t(key, value, &count) != 0) return -1;
  *to_ns = count * unit_ns;
  return 0;
}

static int parse_rate(const char *value, uint64_t *to) {
  int64_t rate = nbdkit_parse_size(value);
  if (rate >= 0) *to = (uint64_t)rate;
  return rate >= 0 ? 0 : -1;
}

static int plugin_config(const char *key, const char *value) {
  if (strcmp(key, "throttle") == 0) return parse_rate(value, &throttle);
  if (strcmp(key, "resync-rate") == 0) return parse_rate(value, &resync.rate);
  if (strcmp(key, "resync-delay") == 0) return parse_times(key, value, 1000000000u, &resync.delay_ns);
  if (strcmp(key, "resync-latency") == 0) return parse_times(key, value, 1000u, &resync.latency_max_ns);
  if (strcmp(key, "resync-hours") == 0) return parse_hours(value);
  if (strcmp(key, "store") == 0) return (store_path = nbdkit_absolute_path(value)) != NULL ? 0 : -1;
  if (strcmp(key, "tap") == 0) return (tap_path = nbdkit_absolute_path(value)) != NULL ? 0 : -1;
  if (strcmp(key, "file") == 0) return (file_path = nbdkit_realpath(value)) != NULL ? 0 : -1;
  if (strcmp(key, "volume") == 0) return (volume_name = nbdkit_strdup_intern(value)) != NULL ? 0 : -1;
  if (strcmp(key, "point") == 0) return (point_text = nbdkit_strdup_intern(value)) != NULL ? 0 : -1;
  if (strcmp(key, "source") == 0) {
    if (strcmp(value, "as-recorded") == 0) source_state = CDP_SOURCE_AS_RECORDED;
    else if (strcmp(value, "equal") == 0) source_state = CDP_SOURCE_EQUAL;
    else if (strcmp(value, "unknown") == 0) source_state = CDP_SOURCE_UNKNOWN;
    else {
      nbdkit_error("source is as-recorded, equal or unknown, not '%s'", value);
      return -1;
    }
    return 0;
  }
  nbdkit_error("unknown parameter '%s'", key);
  return -1;
}

static int plugin_config_complete(void) {
  if ((store_path != NULL) == (tap_path != NULL)) {
    nbdkit_error("give store=DIR, or file=IMAGE and tap=DIR");
    return -1;
  }
  if ((tap_path != NULL) != (file_path != NULL) || (tap_path != NULL && point_text != NULL)) {
    nbdkit_error("file=IMAGE goes with tap=DIR, and point= with store=DIR");
    return -1;
  }
  return 0;
}

/* The store on its directory, behind a limit on the rate of its writes. */
static cdp_status open_throttled(const char *path, cdp_open_options *options) {
  cdp_storage *directory = NULL, *slow = NULL;
  cdp_status status = cdp_storage_open_directory(path, 0, &directory);
  if (status == CDP_OK) status = cdp_storage_open_throttled(directory, throttle, &slow);
  options->storage = slow;
  if (status == CDP_OK) status = cdp_store_open(NULL, options, &store);
  cdp_storage_close(&slow);
  cdp_storage_close(&directory);
  return status;
}

/* Handles do not survive the fork by which nbdkit goes to the background, so that the store is opened behind it. */
static int plugin_after_fork(void) {
  cdp_open_options options;
  cdp_log_sink log;
  cdp_status status;
  CDP_INIT(log);
  log.log = log_line;
  CDP_INIT(options);
  options.log = &log;
  if (point_text != NULL) options.flags = CDP_OPEN_READ_ONLY;
  const char *path = tap_path != NULL ? tap_path : store_path;
  status = throttle > 0 ? open_throttled(path, &options) : cdp_store_open(path, &options, &store);
  if (status != CDP_OK) return failed(status, "cdp_store_open");
  if (point_text != NULL) return 0;
  status = cdp_runner_start(store, 0, &runner);
  if (status != CDP_OK) return failed(status, "cdp_runner_start");
  if (tap_path != NULL && (tapped = tapped_open(store, file_path, volume_name, source_state, &resync)) == NULL)
    return -1;
  return 0;
}

static void plugin_cleanup(void) {
  tapped_close(tapped);
  cdp_status status = cdp_store_close(&store);
  if (status != CDP_OK) failed(status, "cdp_store_close");
}

static void plugin_unload(void) {
  free(store_path);
  free(tap_path);
  free(file_path);
}

/* The point that a connection asks for; NULL: the live volume. */
static const char *wanted_point(void) {
  if (point_text != NULL) return point_text;
  const char *name = nbdkit_export_name();
  return name != NULL && name[0] != 0 ? name : NULL;
}

static void plugin_close(void *handle) {
  struct connection *connection = handle;
  cdp_snapshot_close(&connection->point);
  cdp_volume_close(&connection->volume);
  free(connection);
}

static void *plugin_open(int readonly) {
  struct connection *connection = calloc(1, sizeof *connection);
  const char *text = wanted_point();
  cdp_status status;
  (void)readonly;
  if (connection == NULL) {
    nbdkit_error("calloc: %m");
    return NULL;
  }
  status = cdp_volume_open(store, volume_name, &connection->volume);
  if (status != CDP_OK) {
    failed(status, "cdp_volume_open");
    free(connection);
    return NULL;
  }
  if (text != NULL) {
    cdp_point point;
    cdp_snapshot_info info;
    CDP_INIT(info);
    status = cdp_resolve(store, text, &point);
    if (status == CDP_OK) status = cdp_snapshot_open(connection->volume, point.seq, 0, &connection->point);
    if (status == CDP_OK) status = cdp_snapshot_info_get(connection->point, &info);
    connection->bytes = (int64_t)info.bytes;
  } else if (tapped != NULL) {
    connection->bytes = tapped_size(tapped);
  } else {
    cdp_volume_info info;
    CDP_INIT(info);
    status = cdp_volume_info_get(connection->volume, &info);
    connection->bytes = (int64_t)info.bytes;
  }
  if (status == CDP_OK) return connection;
  failed(status, text != NULL ? text : "the volume");
  plugin_close(connection);
  return NULL;
}

static int64_t plugin_get_size(void *handle) { return ((struct connection *)handle)->bytes; }
static int plugin_can_write(void *handle) { return ((struct connection *)handle)->point == NULL; }
static int plugin_can_flush(void *handle) { return plugin_can_write(handle); }
static int plugin_can_trim(void *handle) { return plugin_can_write(handle); }
static int plugin_can_zero(void *handle) { return plugin_can_write(handle); }
/* In the store zeroes are a record without data. */
static int plugin_can_fast_zero(void *handle) { return plugin_can_write(handle) && tapped == NULL; }
static int plugin_can_fua(void *handle) { return plugin_can_write(handle) ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE; }
/* A flush of one connection makes durable what all have written; every connection sees a write at once. */
static int plugin_can_multi_conn(void *handle) {
  (void)handle;
  return 1;
}
/* The holes of a file under a tap are nobody's business here. */
static int plugin_can_extents(void *handle) { return tapped == NULL || ((struct connection *)handle)->point != NULL; }

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum) {
  (void)handle;
  *minimum = 512;
  *preferred = 4096;
  *maximum = 32u << 20;
  return 0;
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags) {
  struct connection *connection = handle;
  cdp_status status;
  (void)flags;
  if (connection->point != NULL) status = cdp_snapshot_read(connection->point, offset, buf, count);
  else if (tapped != NULL) return tapped_read(tapped, buf, count, offset);
  else status = cdp_volume_read(connection->volume, offset, buf, count);
  return status == CDP_OK ? 0 : failed(status, "read");
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags) {
  struct connection *connection = handle;
  const char *from = buf;
  int fua = (flags & NBDKIT_FLAG_FUA) != 0;
  if (tapped != NULL) return tapped_write(tapped, buf, count, offset, fua);
  while (count > 0) {
    uint32_t piece = count < WRITE_BYTES_MAX ? count : WRITE_BYTES_MAX;
    int last = piece == count;
    uint32_t how = fua && last ? CDP_WRITE_FUA : 0;
    cdp_status status = cdp_volume_write(connection->volume, offset, from, piece, how, NULL);
    if (status != CDP_OK) return failed(status, "write");
    from += piece;
    offset += piece;
    count -= piece;
  }
  return 0;
}

static int plugin_flush(void *handle, uint32_t flags) {
  struct connection *connection = handle;
  (void)flags;
  if (tapped != NULL) return tapped_flush(tapped);
  cdp_status status = cdp_volume_flush(connection->volume, NULL);
  return status == CDP_OK ? 0 : failed(status, "flush");
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  struct connection *connection = handle;
  int fua = (flags & NBDKIT_FLAG_FUA) != 0;
  if (tapped != NULL) return tapped_punch(tapped, count, offset, 0, fua);
  cdp_status status = cdp_volume_discard(connection->volume, offset, count, fua ? CDP_WRITE_FUA : 0, NULL);
  return status == CDP_OK ? 0 : failed(status, "trim");
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  struct connection *connection = handle;
  int fua = (flags & NBDKIT_FLAG_FUA) != 0;
  if (tapped != NULL) {
    if ((flags & NBDKIT_FLAG_MAY_TRIM) != 0) return tapped_punch(tapped, count, offset, 1, fua);
    /* Without leave to make a hole nbdkit writes the zeroes. */
    nbdkit_set_error(EOPNOTSUPP);
    return -1;
  }
  cdp_status status = cdp_volume_write_zeroes(connection->volume, offset, count, fua ? CDP_WRITE_FUA : 0, NULL);
  return status == CDP_OK ? 0 : failed(status, "zero");
}

/* Of the live volume its newest state is looked at, which is as good as the answer can be while others write. */
static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents) {
  struct connection *connection = handle;
  cdp_snapshot *newest = NULL;
  cdp_point point;
  cdp_status status;
  int answer;
  if (connection->point != NULL) return image_extents(connection->point, count, offset, flags, extents);
  status = cdp_resolve(store, "latest", &point);
  if (status == CDP_OK) status = cdp_snapshot_open(connection->volume, point.seq, 0, &newest);
  if (status != CDP_OK) return failed(status, "extents");
  answer = image_extents(newest, count, offset, flags, extents);
  cdp_snapshot_close(&newest);
  return answer;
}

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static struct nbdkit_plugin plugin = {
    .name = "cdp",
    .longname = "continuous data protection",
    .version = "0.1.0",
    .description = "disks that remember every write",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "store=<DIR>          The store that is the disk.\n"
                   "volume=<NAME>        The volume (default: the first one).\n"
                   "point=<POINT>        Serve this point read-only, such as bookmark:x or time:T.\n"
                   "file=<IMAGE>         Serve this file,\n"
                   "tap=<DIR>            and capture its writes into this store.\n"
                   "source=<STATE>       What is known of the file: as-recorded, equal or unknown.\n"
                   "throttle=<SIZE>      Bytes that are written to the store in a second at most.\n"
                   "resync-rate=<SIZE>   Bytes of the file that are compared in a second at most.\n"
                   "resync-delay=<S>     Seconds for which they differ before that begins.\n"
                   "resync-latency=<US>  Microseconds of a write beyond which it becomes slower.\n"
                   "resync-hours=<HOURS> The part of the day for it, as HH:MM-HH:MM, UTC.",
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .unload = plugin_unload,
    .open = plugin_open,
    .close = plugin_close,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_flush = plugin_can_flush,
    .can_trim = plugin_can_trim,
    .can_zero = plugin_can_zero,
    .can_fast_zero = plugin_can_fast_zero,
    .can_fua = plugin_can_fua,
    .can_multi_conn = plugin_can_multi_conn,
    .can_extents = plugin_can_extents,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .extents = plugin_extents,
    .errno_is_preserved = 0,
};

NBDKIT_REGISTER_PLUGIN(plugin)
