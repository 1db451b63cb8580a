/* A plain file that is served to clients while a tap captures what they write to it.
 *
 * Nothing that happens to the store is told to a client: a write that could not be captured is marked, and copied from the file later.
 * Requests may overlap, so each goes to the file with the tap around it.
 */
#define _GNU_SOURCE
#include "plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct tapped {
  int file;
  int64_t bytes;
  cdp_store *store;
  cdp_tap *tap;
  /* The resync follows the latency of the file, of which every 16th write is a sample. */
  int measures;
  atomic_uint writes;
};

static int read_fully(int file, void *buf, size_t len, uint64_t offset) {
  char *to = buf;
  while (len > 0) {
    ssize_t got = pread(file, to, len, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EIO;
    if (got <= 0) return -1;
    to += got;
    len -= (size_t)got;
    offset += (uint64_t)got;
  }
  return 0;
}

static int write_fully(int file, const void *buf, size_t len, uint64_t offset) {
  const char *from = buf;
  while (len > 0) {
    ssize_t put = pwrite(file, from, len, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put == 0) errno = EIO;
    if (put <= 0) return -1;
    from += put;
    len -= (size_t)put;
    offset += (uint64_t)put;
  }
  return 0;
}

/* The file as the library reads it. */
static int32_t source_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  return read_fully((int)(intptr_t)userdata, buf, len, offset) == 0 ? 0 : -errno;
}

static int32_t source_sync(void *userdata) { return fdatasync((int)(intptr_t)userdata) == 0 ? 0 : -errno; }

static int32_t source_next_data(void *userdata, uint64_t offset, uint64_t *next_out) {
  off_t next = lseek((int)(intptr_t)userdata, (off_t)offset, SEEK_DATA);
  if (next < 0 && errno == ENXIO) return CDP_END;
  *next_out = next < 0 ? offset : (uint64_t)next;
  return 0;
}

/* A file that was changed while no tap watched it has another stamp. A device has none: who writes it elsewhere has to say source=unknown. */
static int32_t source_stamp(void *userdata, cdp_source_stamp *stamp_out) {
  struct stat status;
  if (fstat((int)(intptr_t)userdata, &status) != 0) return -errno;
  if (!S_ISREG(status.st_mode)) return CDP_END;
  stamp_out->device = (uint64_t)status.st_dev;
  stamp_out->inode = (uint64_t)status.st_ino;
  stamp_out->bytes = (uint64_t)status.st_size;
  stamp_out->modified_ns = (uint64_t)status.st_mtim.tv_sec * 1000000000u + (uint64_t)status.st_mtim.tv_nsec;
  stamp_out->changed_ns = (uint64_t)status.st_ctim.tv_sec * 1000000000u + (uint64_t)status.st_ctim.tv_nsec;
  return 0;
}

static int set_schedule(cdp_store *store, const struct resync *resync) {
  cdp_resync_schedule schedule;
  CDP_INIT(schedule);
  schedule.delay_ns = resync->delay_ns;
  schedule.bytes_per_second_max = resync->rate;
  schedule.latency_max_ns = resync->latency_max_ns;
  schedule.hours = &resync->hours;
  schedule.hours_count = resync->has_hours ? 1 : 0;
  cdp_status status = cdp_store_set_resync_schedule(store, &schedule);
  return status == CDP_OK ? 0 : failed(status, "the resync-* parameters");
}

struct tapped *tapped_open(cdp_store *store, const char *file, const char *volume, uint32_t source_state,
                           const struct resync *resync) {
  struct tapped *tapped = calloc(1, sizeof *tapped);
  struct stat status;
  cdp_source source;
  cdp_tap_options options;
  cdp_status opened;
  if (tapped == NULL) {
    nbdkit_error("calloc: %m");
    return NULL;
  }
  tapped->file = open(file, O_RDWR | O_CLOEXEC);
  if (tapped->file < 0 || fstat(tapped->file, &status) != 0) {
    nbdkit_error("%s: %m", file);
    goto fail;
  }
  tapped->bytes = lseek(tapped->file, 0, SEEK_END);
  if (tapped->bytes <= 0 || tapped->bytes % 512 != 0) {
    nbdkit_error("%s: the size is not a multiple of 512", file);
    goto fail;
  }
  if (set_schedule(store, resync) != 0) goto fail;
  tapped->store = store;
  tapped->measures = resync->latency_max_ns > 0;
  CDP_INIT(source);
  source.userdata = (void *)(intptr_t)tapped->file;
  source.read = source_read;
  source.sync = source_sync;
  source.next_data = source_next_data;
  source.stamp = source_stamp;
  CDP_INIT(options);
  options.source_state = source_state;
  opened = cdp_tap_open(store, volume, &source, &options, &tapped->tap);
  if (opened != CDP_OK) {
    failed(opened, "cdp_tap_open");
    goto fail;
  }
  return tapped;
fail:
  if (tapped->file >= 0) close(tapped->file);
  free(tapped);
  return NULL;
}

void tapped_close(struct tapped *tapped) {
  if (tapped == NULL) return;
  /* The file stays open: until the store is closed the library may read it. The end of a tap rests on what is on the disk. */
  if (fdatasync(tapped->file) != 0) nbdkit_error("fdatasync: %m");
  cdp_status status = cdp_tap_close(&tapped->tap);
  if (status != CDP_OK) failed(status, "cdp_tap_close");
}

int64_t tapped_size(const struct tapped *tapped) { return tapped->bytes; }

int tapped_read(struct tapped *tapped, void *buf, uint32_t count, uint64_t offset) {
  if (read_fully(tapped->file, buf, count, offset) == 0) return 0;
  nbdkit_error("pread: %m");
  return -1;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A request on its way to the file. */
struct request {
  struct tapped *tapped;
  const void *buf;
  uint32_t count;
  uint64_t offset;
};

/* Writes to the file, and tells the schedule now and then how long that took. */
static int32_t write_file(void *userdata) {
  const struct request *request = userdata;
  struct tapped *tapped = request->tapped;
  int sample = tapped->measures && atomic_fetch_add_explicit(&tapped->writes, 1, memory_order_relaxed) % 16 == 0;
  uint64_t began = sample ? now_ns() : 0;
  int32_t answer = write_fully(tapped->file, request->buf, request->count, request->offset) == 0 ? 0 : -errno;
  if (sample) cdp_store_note_latency(tapped->store, now_ns() - began);
  return answer;
}

static int32_t punch_file(void *userdata) {
  const struct request *request = userdata;
  int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (fallocate(request->tapped->file, mode, (off_t)request->offset, (off_t)request->count) == 0) return 0;
  /* The file system cannot: nothing has changed. */
  return errno == EOPNOTSUPP || errno == ENODEV ? CDP_END : -errno;
}

/* Does a request with the tap around it. One that the tap refuses is done all the same, and its range is marked. Returns what `act` answers. */
static int32_t through(struct request *request, uint32_t kind, int32_t (*act)(void *)) {
  int32_t answer = 0;
  cdp_tap *tap = request->tapped->tap;
  cdp_status status = cdp_tap_write_through(tap, request->offset, request->count, kind, request->buf, act, request, &answer, NULL);
  if (status == CDP_OK) return answer;
  nbdkit_debug("cdp_tap_write_through: %s", cdp_last_error_message());
  answer = act(request);
  if (answer != CDP_END && cdp_tap_mark(tap, request->offset, request->count, CDP_GAP_HOST) != CDP_OK)
    nbdkit_error("a write was not captured: %s", cdp_last_error_message());
  return answer;
}

static int failed_with(int error, const char *what) {
  errno = error;
  nbdkit_error("%s: %m", what);
  nbdkit_set_error(error);
  return -1;
}

static int finish(struct tapped *tapped, int fua) { return fua ? tapped_flush(tapped) : 0; }

int tapped_write(struct tapped *tapped, const void *buf, uint32_t count, uint64_t offset, int fua) {
  const char *from = buf;
  while (count > 0) {
    uint32_t piece = count < WRITE_BYTES_MAX ? count : WRITE_BYTES_MAX;
    struct request request = {tapped, from, piece, offset};
    int32_t answer = through(&request, CDP_WRITTEN_DATA, write_file);
    if (answer != 0) return failed_with(-answer, "pwrite");
    from += piece;
    offset += piece;
    count -= piece;
  }
  return finish(tapped, fua);
}

int tapped_punch(struct tapped *tapped, uint32_t count, uint64_t offset, int must_be_zero, int fua) {
  struct request request = {tapped, NULL, count, offset};
  int32_t answer = through(&request, must_be_zero ? CDP_WRITTEN_ZEROES : CDP_WRITTEN_DISCARD, punch_file);
  if (answer == 0) return finish(tapped, fua);
  if (answer != CDP_END) return failed_with(-answer, "fallocate");
  /* A trim is a wish; zeroes are written by nbdkit then. */
  if (!must_be_zero) return 0;
  nbdkit_set_error(EOPNOTSUPP);
  return -1;
}

int tapped_flush(struct tapped *tapped) {
  if (fdatasync(tapped->file) == 0) return 0;
  nbdkit_error("fdatasync: %m");
  return -1;
}
