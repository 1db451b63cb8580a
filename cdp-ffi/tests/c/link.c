/* A source across a link: the far end, a thread of its own with the disk, answers requests for digests and for bytes over a socket. Resync, a tap and a verification move
   what differs and no more; answers that are short, links that are cut and requests that keep no rules do no harm. */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

/* Three regions and a part of one, and a part of a block. */
enum { DISK = (3 << 20) + 7 * BLOCK + 1536, RANGES = 2048 };

static unsigned char disk[DISK], found[DISK];
static int link_fd, far_fd, freed, cut, lazy, calls_back;
static uint64_t moved_bytes, exchanges;
static pthread_t caller;
static int from_others;

struct request {
  uint32_t op, unit; /* 0: digests, 1: bytes, 2: the end */
  uint64_t key, count;
};
struct reply {
  int32_t error;
  uint32_t reserved;
  uint64_t count;
};

static void put(int fd, const void *bytes, size_t len) {
  for (const char *from = bytes; len > 0;) {
    ssize_t done = write(fd, from, len);
    CHECK(done > 0);
    from += done;
    len -= (size_t)done;
  }
}

static void take(int fd, void *bytes, size_t len) {
  for (char *to = bytes; len > 0;) {
    ssize_t done = read(fd, to, len);
    CHECK(done > 0);
    to += done;
    len -= (size_t)done;
  }
}

static int32_t disk_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  CHECK(offset + len <= DISK && len % 512 == 0);
  memcpy(buf, disk + offset, len);
  return 0;
}

static int32_t broken_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  (void)offset;
  (void)buf;
  (void)len;
  return -EINVAL;
}

/* The far end. */
static void *serve(void *unused) {
  static cdp_extent ranges[RANGES];
  static uint64_t digests[CDP_DIGESTS_MAX];
  static unsigned char bytes[CDP_DIGEST_REQUEST_BYTES_MAX];
  cdp_source own;
  CDP_INIT(own);
  own.read = disk_read;
  for (;;) {
    struct request asked;
    struct reply reply = {0, 0, 0};
    size_t count = 0, len = 0;
    take(far_fd, &asked, sizeof asked);
    if (asked.op == 2) return unused;
    CHECK(asked.count <= RANGES);
    take(far_fd, ranges, asked.count * sizeof *ranges);
    if (asked.op == 0) {
      reply.error = cdp_status_errno(
          cdp_digests_of(&own, DISK, asked.key, asked.unit, ranges, asked.count, digests, CDP_DIGESTS_MAX, &count));
      reply.count = count;
      put(far_fd, &reply, sizeof reply);
      put(far_fd, digests, count * sizeof *digests);
      continue;
    }
    OK(cdp_digests_check(DISK, CDP_DIGEST_BLOCK, ranges, asked.count, &count));
    for (size_t at = 0; at < asked.count; at++) {
      memcpy(bytes + len, disk + ranges[at].offset, ranges[at].len);
      len += ranges[at].len;
    }
    reply.count = len;
    put(far_fd, &reply, sizeof reply);
    put(far_fd, bytes, len);
  }
}

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

/* One exchange; the answer has len bytes, and is counted. */
static int32_t exchange(struct request asked, const cdp_extent *ranges, size_t ranges_count, void *to, size_t len,
                        size_t width) {
  struct reply reply;
  pthread_mutex_lock(&one);
  asked.count = ranges_count;
  put(link_fd, &asked, sizeof asked);
  put(link_fd, ranges, ranges_count * sizeof *ranges);
  take(link_fd, &reply, sizeof reply);
  CHECK(reply.error == 0 && reply.count * width == len);
  take(link_fd, to, len);
  moved_bytes += len;
  exchanges++;
  if (!pthread_equal(pthread_self(), caller)) from_others++;
  pthread_mutex_unlock(&one);
  return 0;
}

static int32_t link_digests(void *userdata, uint64_t key, uint32_t unit, const cdp_extent *ranges, size_t ranges_count,
                            uint64_t *digests_out, size_t digests_count) {
  struct request asked = {0, unit, key, 0};
  (void)userdata;
  if (cut) return -EPIPE;
  if (calls_back) {
    size_t count;
    EXPECT(CDP_ERR_BUSY, cdp_digests_check(DISK, unit, ranges, ranges_count, &count));
  }
  if (lazy) return 0;
  return exchange(asked, ranges, ranges_count, digests_out, digests_count * sizeof *digests_out, sizeof *digests_out);
}

static int32_t link_ranges(void *userdata, const cdp_extent *ranges, size_t ranges_count, void *buf, size_t len) {
  struct request asked = {1, 0, 0, 0};
  (void)userdata;
  if (cut) return -EPIPE;
  return exchange(asked, ranges, ranges_count, buf, len, 1);
}

static int32_t link_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  if (cut) return -EPIPE;
  pthread_mutex_lock(&one);
  moved_bytes += len;
  if (!pthread_equal(pthread_self(), caller)) from_others++;
  pthread_mutex_unlock(&one);
  return disk_read(NULL, offset, buf, len);
}

static int32_t link_sync(void *userdata) {
  (void)userdata;
  return 0;
}
static void link_free(void *userdata) { ++*(int *)userdata; }

static cdp_source across(void) {
  cdp_source made;
  CDP_INIT(made);
  made.userdata = &freed;
  made.read = link_read;
  made.sync = link_sync;
  made.free_userdata = link_free;
  made.digests = link_digests;
  made.read_ranges = link_ranges;
  return made;
}

static void same_as_disk(cdp_volume *volume) {
  memset(found, 0xee, DISK);
  OK(cdp_volume_read(volume, 0, found, DISK));
  CHECK(memcmp(found, disk, DISK) == 0);
}

static void resynced(cdp_store *store, cdp_volume *volume) {
  cdp_source from = across();
  cdp_resync_options options;
  cdp_resync_report report;
  struct {
    unsigned char bytes[sizeof(cdp_resync_report)];
  } old;
  CDP_INIT(options);
  CDP_INIT(report);
  OK(cdp_resync(store, NULL, &from, NULL, NULL, &report));
  CHECK(report.bytes_left == 0 && report.regions_different == 4 && report.digest_bytes > 0);
  same_as_disk(volume);
  OK(cdp_resync(store, NULL, &from, NULL, NULL, &report));
  CHECK(report.source_bytes_read == 0 && report.bytes_different == 0);
  CHECK(report.regions_equal == 4 && report.regions_different == 0 && report.digest_bytes == 4 * 8);

  /* Two blocks, of which one is the last and no whole one: these cross the link, and digests. */
  disk[5 * BLOCK + 9] ^= 1;
  disk[DISK - 1] ^= 1;
  moved_bytes = 0;
  options.readers = 2;
  OK(cdp_resync(store, NULL, &from, &options, NULL, &report));
  CHECK(report.regions_equal == 2 && report.regions_different == 2);
  CHECK(report.source_bytes_read == BLOCK + 1536 && report.bytes_different > 0);
  CHECK(moved_bytes == report.digest_bytes + report.source_bytes_read && moved_bytes < 4 * BLOCK);
  same_as_disk(volume);

  /* By bytes everything is read. */
  CDP_INIT(options);
  options.mode = CDP_RESYNC_FULL;
  OK(cdp_resync(store, NULL, &from, &options, NULL, &report));
  CHECK(report.source_bytes_read == DISK && report.digest_bytes == 0);

  /* A program of before there were digests: its source is read, and its report is no longer than it was. */
  from.struct_size = 56;
  memset(&old, 0xee, sizeof old);
  {
    uint32_t size = 64;
    memcpy(&old, &size, sizeof size);
  }
  disk[77] ^= 1;
  OK(cdp_resync(store, NULL, &from, NULL, NULL, (cdp_resync_report *)(void *)&old));
  memcpy(&report, &old, sizeof report);
  CHECK(report.struct_size == 64 && report.source_bytes_read == DISK && report.bytes_different == BLOCK);
  CHECK(is_all(old.bytes + 64, sizeof old - 64, 0xee));
  same_as_disk(volume);
}

static void verified(cdp_store *store, cdp_volume *volume) {
  cdp_source from = across();
  cdp_verify_options options;
  cdp_verify_report report;
  cdp_extent extents[2];
  cdp_job *job = NULL;
  cdp_status status;
  CDP_INIT(options);
  CDP_INIT(report);
  options.flags = CDP_VERIFY_DIGESTS;
  moved_bytes = 0;
  OK(cdp_verify(store, NULL, &from, &options, NULL, NULL, 0, &report));
  CHECK(report.flags == CDP_VERIFY_COMPLETE && report.bytes_different == 0 && report.bytes_compared == DISK);
  CHECK(report.regions_equal == 4 && report.digest_bytes == 4 * 8 && moved_bytes == 4 * 8);
  CHECK(report.source_bytes_read == 0);
  OK(cdp_verify(store, NULL, &from, NULL, NULL, NULL, 0, &report));
  CHECK(report.source_bytes_read == DISK && report.digest_bytes == 0);

  /* A difference is found at its block, as a job too, and mended. */
  disk[(2 << 20) + 3 * BLOCK] ^= 1;
  OK(cdp_verify(store, NULL, &from, &options, NULL, extents, 2, &report));
  CHECK(report.extents_count == 1 && extents[0].offset == (2 << 20) + 3 * BLOCK && extents[0].len == BLOCK);
  CHECK(report.regions_different == 1 && report.bytes_different == BLOCK);
  options.flags |= CDP_VERIFY_REPAIR;
  options.readers = 2;
  OK(cdp_verify_start(store, NULL, &from, &options, &job));
  while ((status = cdp_job_step(job, 0, NULL)) == CDP_OK) {
  }
  EXPECT(CDP_END, status);
  OK(cdp_job_verify_report(job, &report));
  CHECK(report.flags == (CDP_VERIFY_COMPLETE | CDP_VERIFY_REPAIRED) && report.bytes_different == BLOCK);
  OK(cdp_job_close(&job));
  same_as_disk(volume);
  options.flags = 1u << 2;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_verify(store, NULL, &from, &options, NULL, NULL, 0, &report));
}

/* What a link does wrong. */
static void wrong(cdp_store *store, cdp_volume *volume) {
  cdp_source from = across();
  cdp_verify_options options;
  cdp_verify_report report;
  int before = freed;
  CDP_INIT(options);
  CDP_INIT(report);
  from.read_ranges = NULL;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_resync(store, NULL, &from, NULL, NULL, NULL));
  from = across();
  from.digests = NULL;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_resync(store, NULL, &from, NULL, NULL, NULL));
  CHECK(freed == before + 2);
  from = across();
  cut = 1;
  EXPECT(CDP_ERR_IO, cdp_resync(store, NULL, &from, NULL, NULL, NULL));
  CHECK(cdp_last_error_errno() == EPIPE);
  cut = 0;
  calls_back = 1;
  OK(cdp_resync(store, NULL, &from, NULL, NULL, NULL));
  calls_back = 0;
  /* A digest that was not filled in is never taken for equal, not even where the disk is zeroes: the bytes decide, or it is said. */
  lazy = 1;
  disk[6 * BLOCK] ^= 1;
  options.flags = CDP_VERIFY_DIGESTS;
  OK(cdp_verify(store, NULL, &from, &options, NULL, NULL, 0, &report));
  CHECK(report.bytes_different == DISK);
  OK(cdp_resync(store, NULL, &from, NULL, NULL, NULL));
  lazy = 0;
  same_as_disk(volume);
}

/* A tap whose disk lies across the link, and threads that read ahead for a resync that was asked for. */
static void tapped(cdp_store *store, cdp_volume *volume) {
  cdp_source from = across();
  cdp_tap_options tap_options;
  cdp_resync_options options;
  cdp_resync_report report;
  cdp_tap *tap = NULL;
  cdp_job *job = NULL;
  cdp_status status;
  CDP_INIT(tap_options);
  CDP_INIT(options);
  CDP_INIT(report);
  tap_options.source_state = CDP_SOURCE_EQUAL;
  OK(cdp_tap_open(store, NULL, &from, &tap_options, &tap));
  disk[BLOCK] ^= 1;
  OK(cdp_tap_mark(tap, 0, 2 << 20, CDP_GAP_HOST));
  options.mode = CDP_RESYNC_MAP;
  from_others = 0;
  OK(cdp_tap_resync(tap, &options, NULL, &report));
  CHECK(report.digest_bytes > 0 && report.source_bytes_read == BLOCK && report.regions_equal >= 1 && from_others == 0);
  same_as_disk(volume);
  disk[2 * BLOCK] ^= 1;
  OK(cdp_tap_mark(tap, 0, DISK, CDP_GAP_HOST));
  options.readers = 2;
  OK(cdp_tap_resync(tap, &options, NULL, &report));
  CHECK(report.source_bytes_read == BLOCK && from_others > 0);
  same_as_disk(volume);
  disk[3 * BLOCK] ^= 1;
  from_others = 0;
  options.mode = CDP_RESYNC_FULL;
  OK(cdp_tap_resync_start(tap, &options, &job));
  while ((status = cdp_job_step(job, 0, NULL)) == CDP_OK) {
  }
  EXPECT(CDP_END, status);
  OK(cdp_job_resync_report(job, &report));
  CHECK(report.source_bytes_read == DISK && report.digest_bytes == 0 && from_others > 0);
  OK(cdp_job_close(&job));
  same_as_disk(volume);
  OK(cdp_tap_close(&tap));
}

/* The far end by itself, and requests that keep no rules: nothing is read for them. */
static void requests(void) {
  static unsigned char zeroes[BLOCK];
  static cdp_extent many[CDP_DIGESTS_MAX + 1];
  static uint64_t digests[CDP_DIGESTS_MAX], again[CDP_DIGESTS_MAX];
  const uint64_t far = 20 << 20;
  cdp_extent ranges[2] = {{0, 2 * BLOCK}, {8 * BLOCK, BLOCK}};
  cdp_source own;
  size_t count = 77;
  int before = freed;
  CDP_INIT(own);
  own.userdata = &freed;
  own.free_userdata = link_free;
  own.read = disk_read;
  memset(disk + BLOCK, 0, BLOCK);
  CHECK(is_all(zeroes, BLOCK, 0));
  OK(cdp_digests_of(&own, DISK, 7, CDP_DIGEST_BLOCK, ranges, 2, digests, 3, &count));
  CHECK(count == 3 && digests[0] != 0 && digests[1] == 0 && digests[2] != 0 && freed == before + 1);
  OK(cdp_digests_of(&own, DISK, 8, CDP_DIGEST_BLOCK, ranges, 2, again, 3, &count));
  CHECK(again[0] != digests[0] && again[1] == 0);
  disk[8 * BLOCK + 5] ^= 1;
  OK(cdp_digests_of(&own, DISK, 7, CDP_DIGEST_BLOCK, ranges, 2, again, 3, &count));
  CHECK(again[0] == digests[0] && again[2] != digests[2]);
  OK(cdp_digests_of(&own, DISK, 7, CDP_DIGEST_REGION, ranges, 2, again, 3, &count));
  CHECK(count == 2);
  OK(cdp_digests_of(&own, DISK, 7, CDP_DIGEST_REGION, NULL, 0, NULL, 0, &count));
  CHECK(count == 0);
  OK(cdp_digests_check(DISK, CDP_DIGEST_BLOCK, ranges, 2, &count));
  CHECK(count == 3);
  OK(cdp_digests_check(DISK, CDP_DIGEST_BLOCK, ranges, 2, NULL));

  own.read = broken_read;
  memset(again, 0xee, sizeof again);
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, cdp_digests_of(&own, DISK, 7, CDP_DIGEST_BLOCK, ranges, 2, again, 2, &count));
  CHECK(count == 3);
  EXPECT(CDP_ERR_IO, cdp_digests_of(&own, DISK, 7, CDP_DIGEST_BLOCK, ranges, 2, again, 3, &count));
  CHECK(cdp_last_error_errno() == EINVAL && is_all((unsigned char *)again, sizeof again, 0xee));
#define REFUSED(unit, first, first_len, n)                                                                     \
  do {                                                                                                         \
    ranges[0].offset = (first);                                                                                \
    ranges[0].len = (first_len);                                                                               \
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_of(&own, far, 7, unit, ranges, n, again, CDP_DIGESTS_MAX, &count)); \
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_check(far, unit, ranges, n, &count));                         \
  } while (0)
  count = 77;
  REFUSED(2, 0, BLOCK, 1);
  REFUSED(CDP_DIGEST_BLOCK, 512, BLOCK, 1);
  REFUSED(CDP_DIGEST_BLOCK, 0, 512, 1);
  REFUSED(CDP_DIGEST_BLOCK, 0, 0, 1);
  REFUSED(CDP_DIGEST_BLOCK, far, BLOCK, 1);
  REFUSED(CDP_DIGEST_BLOCK, BLOCK, UINT64_MAX - BLOCK + 1, 1);
  REFUSED(CDP_DIGEST_REGION, UINT64_MAX - BLOCK + 1, 2 * BLOCK, 1);
  REFUSED(CDP_DIGEST_REGION, 0, CDP_DIGEST_REQUEST_BYTES_MAX + BLOCK, 1);
  REFUSED(CDP_DIGEST_BLOCK, 8 * BLOCK, BLOCK, 2);
  REFUSED(CDP_DIGEST_BLOCK, 16 * BLOCK, BLOCK, 2);
  CHECK(count == 77);
  for (size_t at = 0; at <= CDP_DIGESTS_MAX; at++) {
    many[at].offset = at * BLOCK;
    many[at].len = BLOCK;
  }
  own.read = disk_read;
  OK(cdp_digests_check(far, CDP_DIGEST_BLOCK, many, CDP_DIGESTS_MAX, &count));
  CHECK(count == CDP_DIGESTS_MAX);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_check(far, CDP_DIGEST_BLOCK, many, CDP_DIGESTS_MAX + 1, &count));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_check(far, CDP_DIGEST_BLOCK, NULL, 1, &count));
  ranges[0].offset = 0;
  ranges[0].len = BLOCK;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_of(NULL, DISK, 7, 0, ranges, 1, again, 1, &count));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_of(&own, DISK, 7, 0, ranges, 1, NULL, 1, &count));
  before = freed;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_digests_of(&own, DISK, 7, 0, ranges, 1, again, 1, NULL));
  CHECK(freed == before + 1);
}

int main(int argc, char **argv) {
  char path[512];
  struct request end = {2, 0, 0, 0};
  int ends[2];
  pthread_t far;
  cdp_store *store;
  cdp_volume *volume = NULL;
  in_directory(path, sizeof path, argc, argv, "store");
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  link_fd = ends[0];
  far_fd = ends[1];
  caller = pthread_self();
  CHECK(pthread_create(&far, NULL, serve, NULL) == 0);
  /* No two blocks are equal, and some are zeroes. */
  for (size_t at = 0; at < DISK; at++) disk[at] = (unsigned char)(at / BLOCK * 7 + at % 251 + 1);
  for (size_t at = 0; at + BLOCK <= DISK; at += BLOCK) memcpy(disk + at, &at, sizeof at);
  memset(disk + (1 << 20) + 40 * BLOCK, 0, 60 * BLOCK);
  store = new_store(path, DISK);
  OK(cdp_volume_open(store, NULL, &volume));
  resynced(store, volume);
  verified(store, volume);
  wrong(store, volume);
  tapped(store, volume);
  CHECK(exchanges > 10);
  OK(cdp_store_close(&store));
  requests();
  put(link_fd, &end, sizeof end);
  CHECK(pthread_join(far, NULL) == 0);
  close(link_fd);
  close(far_fd);
  return 0;
}
