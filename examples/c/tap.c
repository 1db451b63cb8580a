/* Capture beside a production disk: a file stands for the disk, and the tap sees every write after it was made and before it is acknowledged.
 *
 *   tap DIRECTORY         (new; makes DIRECTORY/disk.img and DIRECTORY/store)
 */
#define _XOPEN_SOURCE 700
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 4096, DISK = 64 << 20, WRITES = 1000 };

/* How the library reads the production disk, to copy what it could not capture. */
static int32_t disk_read(void *userdata, uint64_t offset, void *buf, size_t len) {
  char *to = buf;
  while (len > 0) {
    ssize_t got = pread(*(int *)userdata, to, len, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? -errno : -EIO;
    to += got;
    len -= (size_t)got;
    offset += (uint64_t)got;
  }
  return 0;
}

static int32_t disk_sync(void *userdata) { return fdatasync(*(int *)userdata) == 0 ? 0 : -errno; }

/* The write path of the product. */
static uint32_t product_write(int disk, cdp_tap *tap, uint64_t offset, const void *data, size_t len) {
  uint32_t outcome = 0;
  if (pwrite(disk, data, len, (off_t)offset) != (ssize_t)len) {
    /* What is on the disk now nobody knows: it is copied later. */
    MUST(cdp_tap_mark(tap, offset, len, CDP_GAP_HOST));
    return CDP_CAPTURED_MARKED;
  }
  /* A copy into memory that never waits for the store. Only then the write is acknowledged. */
  MUST(cdp_tap_capture(tap, offset, data, len, 0, &outcome));
  return outcome;
}

static uint64_t place(int number) { return (uint64_t)number * 7919 % (DISK / BLOCK) * BLOCK; }

int main(int argc, char **argv) {
  char path[512], image[512];
  cdp_store *store = NULL;
  cdp_volume *volume = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_runner *runner = NULL;
  cdp_tap *tap = NULL;
  cdp_create_options create;
  cdp_tap_options options;
  cdp_source source;
  cdp_point point;
  cdp_tap_stats stats;
  cdp_verify_report report;
  unsigned char block[BLOCK];
  int disk;

  if (argc != 2 || mkdir(argv[1], 0700) != 0) {
    fprintf(stderr, "usage: tap DIRECTORY (new)\n");
    return 2;
  }
  snprintf(path, sizeof path, "%s/store", argv[1]);
  snprintf(image, sizeof image, "%s/disk.img", argv[1]);
  disk = open(image, O_RDWR | O_CREAT | O_EXCL, 0600);
  EXPECT(disk >= 0 && ftruncate(disk, DISK) == 0);

  CDP_INIT(create);
  create.bytes = DISK;
  MUST(cdp_store_create(path, &create, &store));
  MUST(cdp_runner_start(store, 0, &runner));
  CDP_INIT(source);
  source.userdata = &disk;
  source.read = disk_read;
  source.sync = disk_sync;
  CDP_INIT(options);
  options.source_state = CDP_SOURCE_EQUAL; /* both are new: there is nothing to copy before the first write */
  MUST(cdp_tap_open(store, "disk", &source, &options, &tap));

  for (int number = 0; number < WRITES; number++) {
    memset(block, number % 255 + 1, sizeof block);
    product_write(disk, tap, place(number), block, sizeof block);
    if (number == WRITES / 2 - 1) MUST(cdp_bookmark_create(store, "half-way", NULL, NULL, NULL));
  }
  CDP_INIT(stats);
  MUST(cdp_tap_stats_get(tap, &stats));
  printf("%llu writes captured whole, %llu marked, %llu gaps\n", (unsigned long long)stats.whole,
         (unsigned long long)stats.marked, (unsigned long long)stats.gaps);

  MUST(cdp_resolve(store, "bookmark:half-way", &point));
  MUST(cdp_volume_open(store, "disk", &volume));
  MUST(cdp_snapshot_open(volume, point.seq, 0, &snapshot));
  for (int number = 0; number < WRITES; number++) {
    MUST(cdp_snapshot_read(snapshot, place(number), block, sizeof block));
    EXPECT(block[0] == (number < WRITES / 2 ? number % 255 + 1 : 0));
  }
  /* And the newest state is the disk, byte by byte. */
  CDP_INIT(report);
  MUST(cdp_verify(store, "disk", &source, NULL, NULL, NULL, 0, &report));
  EXPECT(report.bytes_different == 0 && report.bytes_compared == DISK);
  printf("half-way is seq %llu; the newest state equals the disk\n", (unsigned long long)point.seq);

  MUST(cdp_tap_close(&tap));
  MUST(cdp_store_close(&store));
  close(disk);
  return 0;
}
