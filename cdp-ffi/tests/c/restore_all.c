/* Restore at once: into a file and into targets of the host, on one thread and on several, ended early, failing, and what is refused. */
#include "check.h"

#include <errno.h>
#include <pthread.h>

/* Restored in pieces of 1 MiB, the hole in the middle being one. */
enum { DISK = (24 << 20) + 512, HOLE = 5 << 20, HOLE_LEN = 9 << 20, PIECES = 24 - 9 + 1 + 1 };

static unsigned char expected[DISK], found[DISK];

struct image {
  pthread_mutex_t lock;
  unsigned char *bytes;
  unsigned char *times; /* how often each block was told */
  uint64_t last, fail_at;
  int ascends, others, finished, freed;
  pthread_t caller;
  /* All but the first piece wait in the target until the watch has ended the call. */
  int held, inside, released;
  pthread_cond_t moved;
};

static int32_t told(struct image *image, uint64_t offset, uint64_t len) {
  int32_t answer = 0;
  pthread_mutex_lock(&image->lock);
  if (offset < image->last) image->ascends = 0;
  image->last = offset;
  if (!pthread_equal(pthread_self(), image->caller)) image->others++;
  for (uint64_t at = offset / BLOCK; at * BLOCK < offset + len; at++) image->times[at]++;
  if (image->held && offset > 0) {
    image->inside++;
    pthread_cond_broadcast(&image->moved);
    while (!image->released) pthread_cond_wait(&image->moved, &image->lock);
  }
  if (image->fail_at >= offset && image->fail_at < offset + len) answer = -ENOSPC;
  pthread_mutex_unlock(&image->lock);
  return answer;
}

static int32_t image_write(void *userdata, uint64_t offset, const void *buf, size_t len) {
  struct image *image = userdata;
  CHECK(offset + len <= DISK && offset % BLOCK == 0 && (len % BLOCK == 0 || offset + len == DISK));
  memcpy(image->bytes + offset, buf, len);
  return told(image, offset, len);
}

static int32_t image_zero(void *userdata, uint64_t offset, uint64_t len) {
  struct image *image = userdata;
  CHECK(offset + len <= DISK);
  memset(image->bytes + offset, 0, len);
  return told(image, offset, len);
}

static int32_t image_finish(void *userdata) {
  ((struct image *)userdata)->finished++;
  return 0;
}
static void image_free(void *userdata) { ((struct image *)userdata)->freed++; }

static struct image image = {PTHREAD_MUTEX_INITIALIZER, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, PTHREAD_COND_INITIALIZER};

static cdp_target target_of(uint32_t flags) {
  cdp_target target;
  CDP_INIT(target);
  target.flags = flags;
  target.userdata = &image;
  target.write = image_write;
  target.zero = image_zero;
  target.finish = image_finish;
  target.free_userdata = image_free;
  memset(image.bytes, 0xee, DISK);
  memset(image.times, 0, DISK / BLOCK + 1);
  image.last = 0;
  image.fail_at = UINT64_MAX;
  image.ascends = 1;
  image.others = image.finished = image.freed = 0;
  image.caller = pthread_self();
  return target;
}

static void same_as_expected(const cdp_restore_progress *progress) {
  CHECK(memcmp(image.bytes, expected, DISK) == 0);
  CHECK(is_all(image.times, DISK / BLOCK + 1, 1));
  CHECK(image.finished == 1 && image.freed == 1);
  CHECK(progress->bytes_done == DISK && progress->bytes_total == DISK);
  CHECK(progress->data_bytes + progress->zero_bytes == DISK && progress->zero_bytes > (8 << 20));
}

struct watched {
  pthread_t caller;
  uint64_t done, end_at;
};

static int32_t watch_progress(void *userdata, uint64_t done, uint64_t total) {
  struct watched *watched = userdata;
  CHECK(pthread_equal(pthread_self(), watched->caller));
  CHECK(done >= watched->done && done <= total && total == DISK);
  watched->done = done;
  return done >= watched->end_at;
}

static void into_host(cdp_snapshot *snapshot) {
  const uint32_t threads[] = {0, 1, 3, 64};
  cdp_restore_options options;
  cdp_restore_progress progress;
  cdp_watch watch;
  struct watched watched;
  cdp_target target;
  CDP_INIT(watch);
  watch.userdata = &watched;
  watch.progress = watch_progress;
  watched.caller = pthread_self();
  for (size_t at = 0; at < sizeof threads / sizeof *threads; at++)
    for (uint32_t flags = 0; flags <= CDP_TARGET_SHARED; flags++) {
      CDP_INIT(options);
      CDP_INIT(progress);
      options.threads = threads[at];
      watched.done = 0;
      watched.end_at = UINT64_MAX;
      target = target_of(flags);
      OK(cdp_snapshot_restore(snapshot, &target, &options, &watch, &progress));
      same_as_expected(&progress);
      CHECK(watched.done == DISK);
      /* Only a target that says so is called from other threads, and out of order. */
      CHECK((image.others > 0) == (flags != 0 && threads[at] > 0));
      CHECK(flags != 0 || image.ascends);
      /* Ended early, and failing: an error, and nothing was called durable. */
      watched.done = 0;
      watched.end_at = 2 << 20;
      target = target_of(flags);
      EXPECT(CDP_ERR_IO, cdp_snapshot_restore(snapshot, &target, &options, &watch, &progress));
      CHECK(cdp_last_error_errno() == ECANCELED && image.finished == 0 && image.freed == 1);
      /* What is ended with its last piece is done. */
      watched.done = 0;
      watched.end_at = DISK;
      target = target_of(flags);
      OK(cdp_snapshot_restore(snapshot, &target, &options, &watch, &progress));
      same_as_expected(&progress);
      target = target_of(flags);
      image.fail_at = 20 << 20;
      EXPECT(CDP_ERR_IO, cdp_snapshot_restore(snapshot, &target, &options, NULL, NULL));
      CHECK(cdp_last_error_errno() == ENOSPC && image.finished == 0 && image.freed == 1);
    }
  /* All by default; and the struct goes for steps too. */
  CDP_INIT(progress);
  target = target_of(CDP_TARGET_SHARED);
  OK(cdp_snapshot_restore(snapshot, &target, NULL, NULL, &progress));
  same_as_expected(&progress);
  {
    cdp_restore *restore = NULL;
    target = target_of(CDP_TARGET_SHARED);
    OK(cdp_restore_start(snapshot, &target, &restore));
    OK(cdp_restore_set_readers(restore, 3));
    EXPECT(CDP_END, cdp_restore_step(restore, UINT64_MAX, &progress));
    OK(cdp_restore_close(&restore));
    same_as_expected(&progress);
    CHECK(image.others == 0 && image.ascends);
  }
}

static int32_t end_when_all_are_inside(void *userdata, uint64_t done, uint64_t total) {
  (void)userdata;
  CHECK(done < total);
  pthread_mutex_lock(&image.lock);
  while (image.inside < PIECES - 1) pthread_cond_wait(&image.moved, &image.lock);
  image.released = 1;
  pthread_cond_broadcast(&image.moved);
  pthread_mutex_unlock(&image.lock);
  return 1;
}

/* A call that was ended says so, also where its threads could come to the end before they learnt of it. */
static void ended_late(cdp_snapshot *snapshot) {
  cdp_restore_options options;
  cdp_watch watch;
  cdp_target target = target_of(CDP_TARGET_SHARED);
  CDP_INIT(options);
  CDP_INIT(watch);
  options.threads = 64;
  watch.progress = end_when_all_are_inside;
  image.held = 1;
  EXPECT(CDP_ERR_IO, cdp_snapshot_restore(snapshot, &target, &options, &watch, NULL));
  CHECK(cdp_last_error_errno() == ECANCELED && image.finished == 0 && image.freed == 1);
  CHECK(is_all(image.times, DISK / BLOCK + 1, 1));
  image.held = 0;
}

static void into_file(cdp_snapshot *snapshot, const char *directory) {
  cdp_restore_options options;
  cdp_restore_progress progress;
  cdp_watch watch;
  struct watched watched;
  char path[600];
  CDP_INIT(options);
  CDP_INIT(watch);
  watch.userdata = &watched;
  watch.progress = watch_progress;
  watched.caller = pthread_self();
  for (uint32_t threads = 0; threads < 5; threads += 2) {
    FILE *file;
    CDP_INIT(progress);
    options.threads = threads;
    watched.done = 0;
    watched.end_at = UINT64_MAX;
    snprintf(path, sizeof path, "%s-%d", directory, (int)threads);
    OK(cdp_snapshot_restore_file(snapshot, path, &options, &watch, &progress));
    CHECK(progress.bytes_done == DISK && progress.data_bytes + progress.zero_bytes == DISK);
    EXPECT(CDP_ERR_EXISTS, cdp_snapshot_restore_file(snapshot, path, &options, NULL, NULL));
    memset(found, 0xee, DISK);
    file = fopen(path, "rb");
    CHECK(file != NULL && fread(found, 1, DISK, file) == DISK && fgetc(file) == EOF);
    fclose(file);
    CHECK(memcmp(found, expected, DISK) == 0);
    snprintf(path, sizeof path, "%s-%d-ended", directory, (int)threads);
    watched.done = 0;
    watched.end_at = 2 << 20;
    EXPECT(CDP_ERR_IO, cdp_snapshot_restore_file(snapshot, path, &options, &watch, &progress));
    CHECK(cdp_last_error_errno() == ECANCELED);
  }
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_snapshot_restore_file(snapshot, NULL, NULL, NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_snapshot_restore_file(NULL, path, NULL, NULL, NULL));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_snapshot_restore_file(snapshot, "/none/of/that/name", NULL, NULL, NULL));
}

static void refused(cdp_snapshot *snapshot, const char *directory) {
  cdp_restore_options options;
  cdp_restore_progress progress;
  cdp_watch watch;
  cdp_target target;
  char path[600];
  FILE *file;
  CDP_INIT(options);
  CDP_INIT(progress);
  CDP_INIT(watch);
#define REFUSED(status, flags)                                                                     \
  do {                                                                                             \
    target = target_of(flags);                                                                     \
    EXPECT(status, cdp_snapshot_restore(snapshot, &target, &options, &watch, &progress));          \
    CHECK(image.freed == 1 && image.finished == 0 && is_all(image.times, DISK / BLOCK + 1, 0));    \
    EXPECT(status, cdp_snapshot_restore_file(snapshot, path, &options, &watch, &progress));        \
  } while (0)
  snprintf(path, sizeof path, "%s-refused", directory);
  REFUSED(CDP_ERR_INVALID_ARGUMENT, 0); /* a watch without a function */
  watch.progress = watch_progress;
  options.threads = 65;
  REFUSED(CDP_ERR_INVALID_ARGUMENT, CDP_TARGET_SHARED);
  CDP_INIT(options);
  options.flags = 1;
  REFUSED(CDP_ERR_UNSUPPORTED, CDP_TARGET_SHARED);
  CDP_INIT(options);
  options.reserved = 1;
  REFUSED(CDP_ERR_UNSUPPORTED, 0);
  CDP_INIT(options);
  progress.struct_size = 3;
  REFUSED(CDP_ERR_INVALID_ARGUMENT, 0);
  file = fopen(path, "rb");
  CHECK(file == NULL);
  target = target_of(1u << 1);
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_snapshot_restore(snapshot, &target, NULL, NULL, NULL));
  target = target_of(0);
  target.zero = NULL;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_snapshot_restore(snapshot, &target, NULL, NULL, NULL));
  CHECK(image.freed == 1);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_snapshot_restore(snapshot, NULL, NULL, NULL, NULL));
  target = target_of(0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_snapshot_restore(NULL, &target, NULL, NULL, NULL));
  CHECK(image.freed == 1);
}

int main(int argc, char **argv) {
  char path[512];
  cdp_store *store = new_store(NULL, DISK);
  cdp_volume *volume = NULL;
  cdp_snapshot *snapshot = NULL;
  uint64_t seq;
  in_directory(path, sizeof path, argc, argv, "image");
  image.bytes = malloc(DISK);
  image.times = malloc(DISK / BLOCK + 1);
  CHECK(image.bytes != NULL && image.times != NULL);
  for (size_t at = 0; at < DISK; at++) expected[at] = (unsigned char)(at / BLOCK * 13 + at % 241 + 1);
  memset(expected + HOLE, 0, HOLE_LEN);
  OK(cdp_volume_open(store, NULL, &volume));
  for (size_t at = 0; at < DISK; at += 1 << 20) {
    size_t len = DISK - at < (1 << 20) ? DISK - at : 1 << 20;
    if (!is_all(expected + at, len, 0)) OK(cdp_volume_write(volume, at, expected + at, len, 0, &seq));
  }
  OK(cdp_snapshot_open(volume, seq, 0, &snapshot));
  /* What is written since is not in it. */
  OK(cdp_volume_write(volume, 0, expected + BLOCK, BLOCK, CDP_WRITE_FUA, NULL));
  into_host(snapshot);
  ended_late(snapshot);
  into_file(snapshot, path);
  refused(snapshot, path);
  OK(cdp_snapshot_close(&snapshot));
  OK(cdp_store_close(&store));
  free(image.bytes);
  free(image.times);
  return 0;
}
