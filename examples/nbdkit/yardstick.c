/* The least that a tap can do, as a yardstick for the one here: each write to the file is copied once, and one thread writes the copies to a log,
 * 1 MiB at a time past the page cache. There is no digest, index, order of overlapping writes or recovery: nothing could be restored from it.
 *
 *   nbdkit ./nbdkit-cdp-yardstick-plugin.so file=IMAGE log=FILE
 *
 * A write that finds no room is left out, and counted when the server ends.
 */
#define _GNU_SOURCE
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define PIECE ((size_t)1 << 20)
#define PIECES ((size_t)64)
#define HUGE_PAGE ((uintptr_t)2 << 20)
/* The log begins anew here. */
#define LOG_BYTES ((off_t)4 << 30)

static const char *file_name, *log_name;
static int file = -1, log_file = -1;
static int64_t file_bytes;
static char *ring;
/* Pieces that were filled and written, and bytes in the one that is being filled. */
static uint64_t filled, written;
static size_t fill;
static uint64_t left_out;
static int started, ended;
static pthread_t writer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;

static int yardstick_config(const char *key, const char *value) {
  if (strcmp(key, "file") == 0) {
    file_name = value;
  } else if (strcmp(key, "log") == 0) {
    log_name = value;
  } else {
    nbdkit_error("unknown parameter %s", key);
    return -1;
  }
  return 0;
}

static int yardstick_get_ready(void) {
  if (file_name == NULL || log_name == NULL) {
    nbdkit_error("file= and log= are needed");
    return -1;
  }
  file = open(file_name, O_RDWR | O_CLOEXEC);
  if (file < 0 || (file_bytes = lseek(file, 0, SEEK_END)) < 0) {
    nbdkit_error("%s: %m", file_name);
    return -1;
  }
  log_file = open(log_name, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (log_file < 0 || (errno = posix_fallocate(log_file, 0, LOG_BYTES)) != 0) {
    nbdkit_error("%s: %m", log_name);
    return -1;
  }
  char *map = mmap(NULL, PIECES * PIECE + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) {
    nbdkit_error("mmap: %m");
    return -1;
  }
  ring = map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE);
  madvise(ring, PIECES * PIECE, MADV_HUGEPAGE);
  memset(ring, 0, PIECES * PIECE);
  return 0;
}

static char *piece(uint64_t number) { return ring + number % PIECES * PIECE; }

static void *write_log(void *unused) {
  off_t at = 0;
  for (;;) {
    pthread_mutex_lock(&lock);
    while (written == filled && !ended) pthread_cond_wait(&more, &lock);
    const char *from = piece(written);
    int last = written == filled;
    pthread_mutex_unlock(&lock);
    if (last) return unused;
    if (pwrite(log_file, from, PIECE, at) != (ssize_t)PIECE) nbdkit_error("%s: %m", log_name);
    at = (at + (off_t)PIECE) % LOG_BYTES;
    pthread_mutex_lock(&lock);
    written++;
    pthread_mutex_unlock(&lock);
  }
}

static int yardstick_after_fork(void) {
  errno = pthread_create(&writer, NULL, write_log, NULL);
  started = errno == 0;
  if (started) return 0;
  nbdkit_error("pthread_create: %m");
  return -1;
}

static void yardstick_unload(void) {
  pthread_mutex_lock(&lock);
  ended = 1;
  pthread_cond_signal(&more);
  pthread_mutex_unlock(&lock);
  if (started) pthread_join(writer, NULL);
  if (left_out > 0) nbdkit_error("%llu bytes found no room and were left out", (unsigned long long)left_out);
}

static void copy(const char *from, size_t bytes) {
  pthread_mutex_lock(&lock);
  while (bytes > 0) {
    if (filled - written >= PIECES) {
      left_out += bytes;
      break;
    }
    size_t now = PIECE - fill < bytes ? PIECE - fill : bytes;
    memcpy(piece(filled) + fill, from, now);
    from += now;
    bytes -= now;
    fill += now;
    if (fill == PIECE) {
      fill = 0;
      filled++;
      pthread_cond_signal(&more);
    }
  }
  pthread_mutex_unlock(&lock);
}

static void *yardstick_open(int readonly) {
  (void)readonly;
  return &file;
}

static int64_t yardstick_get_size(void *handle) {
  (void)handle;
  return file_bytes;
}

static int yes(void *handle) {
  (void)handle;
  return 1;
}

static int native_fua(void *handle) {
  (void)handle;
  return NBDKIT_FUA_NATIVE;
}

static int yardstick_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags) {
  (void)handle, (void)flags;
  for (char *to = buf; count > 0;) {
    ssize_t got = pread(file, to, count, (off_t)offset);
    if (got <= 0) {
      nbdkit_error("pread: %m");
      return -1;
    }
    to += got;
    count -= (uint32_t)got;
    offset += (uint64_t)got;
  }
  return 0;
}

static int yardstick_flush(void *handle, uint32_t flags) {
  (void)handle, (void)flags;
  if (fdatasync(file) == 0) return 0;
  nbdkit_error("fdatasync: %m");
  return -1;
}

static int yardstick_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags) {
  uint32_t left = count;
  for (const char *from = buf; left > 0;) {
    ssize_t put = pwrite(file, from, left, (off_t)offset);
    if (put <= 0) {
      nbdkit_error("pwrite: %m");
      return -1;
    }
    from += put;
    left -= (uint32_t)put;
    offset += (uint64_t)put;
  }
  copy(buf, count);
  return flags & NBDKIT_FLAG_FUA ? yardstick_flush(handle, 0) : 0;
}

static struct nbdkit_plugin plugin = {
    .name = "cdp-yardstick",
    .config = yardstick_config,
    .get_ready = yardstick_get_ready,
    .after_fork = yardstick_after_fork,
    .unload = yardstick_unload,
    .open = yardstick_open,
    .get_size = yardstick_get_size,
    .can_write = yes,
    .can_flush = yes,
    .can_multi_conn = yes,
    .can_fua = native_fua,
    .pread = yardstick_pread,
    .pwrite = yardstick_pwrite,
    .flush = yardstick_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
