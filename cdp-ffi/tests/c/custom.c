/* The host supplies everything: storage, clock. What it refuses comes back with its errno, and what it lent is handed back once. */
#include "check.h"

#include <errno.h>
#include <pthread.h>

enum { EXTENTS = 64, DISK = 1 << 20 };

struct extent {
  uint64_t id, bytes;
  unsigned char *data;
  int named, open;
};

struct host {
  pthread_mutex_t lock;
  struct extent extents[EXTENTS];
  int freed, locks, refuse_writes, opened, closed;
  uint64_t now;
};

static struct extent *named(struct host *host, uint64_t id) {
  for (int at = 0; at < EXTENTS; at++)
    if (host->extents[at].named && host->extents[at].id == id) return &host->extents[at];
  return NULL;
}

static int resize(struct extent *extent, uint64_t bytes) {
  unsigned char *data = realloc(extent->data, bytes ? bytes : 1);
  if (data == NULL) return -ENOSPC;
  if (bytes > extent->bytes) memset(data + extent->bytes, 0, bytes - extent->bytes);
  extent->data = data;
  extent->bytes = bytes;
  return 0;
}

static void let_go(struct extent *extent) {
  if (extent->named || extent->open > 0) return;
  free(extent->data);
  memset(extent, 0, sizeof *extent);
}

#define LOCKED(host, ...)                    \
  int32_t answer_ = 0;                       \
  pthread_mutex_lock(&(host)->lock);         \
  __VA_ARGS__                                \
  pthread_mutex_unlock(&(host)->lock);       \
  return answer_

static int32_t create(void *userdata, uint64_t id, uint64_t bytes, void **handle_out) {
  struct host *host = userdata;
  LOCKED(host, {
    int at = 0;
    while (at < EXTENTS && (host->extents[at].named || host->extents[at].open)) at++;
    if (named(host, id)) answer_ = -EEXIST;
    else if (at == EXTENTS) answer_ = -ENOSPC;
    else if ((answer_ = resize(&host->extents[at], bytes)) == 0) {
      host->extents[at].id = id;
      host->extents[at].named = host->extents[at].open = 1;
      host->opened++;
      *handle_out = &host->extents[at];
    }
  });
}
static int32_t open_(void *userdata, uint64_t id, void **handle_out) {
  struct host *host = userdata;
  LOCKED(host, {
    struct extent *extent = named(host, id);
    if (extent == NULL) answer_ = -ENOENT;
    else {
      extent->open++;
      host->opened++;
      *handle_out = extent;
    }
  });
}
static void close_(void *userdata, void *handle) {
  struct host *host = userdata;
  struct extent *extent = handle;
  pthread_mutex_lock(&host->lock);
  extent->open--;
  host->closed++;
  let_go(extent);
  pthread_mutex_unlock(&host->lock);
}
static int32_t list(void *userdata, uint64_t *ids_out, size_t capacity, size_t *count_out) {
  struct host *host = userdata;
  LOCKED(host, {
    size_t count = 0;
    for (int at = 0; at < EXTENTS; at++)
      if (host->extents[at].named) {
        if (count < capacity) ids_out[count] = host->extents[at].id;
        count++;
      }
    *count_out = count;
  });
}
static int32_t remove_(void *userdata, uint64_t id) {
  struct host *host = userdata;
  LOCKED(host, {
    struct extent *extent = named(host, id);
    if (extent == NULL) answer_ = -ENOENT;
    else {
      extent->named = 0;
      let_go(extent);
    }
  });
}
static int32_t read_(void *userdata, void *handle, uint64_t offset, void *buf, size_t len) {
  struct host *host = userdata;
  struct extent *extent = handle;
  LOCKED(host, {
    if (offset > extent->bytes || len > extent->bytes - offset) answer_ = -EIO;
    else memcpy(buf, extent->data + offset, len);
  });
}
static int32_t write_(void *userdata, void *handle, uint64_t offset, const void *buf, size_t len) {
  struct host *host = userdata;
  struct extent *extent = handle;
  LOCKED(host, {
    if (host->refuse_writes) answer_ = -EDQUOT;
    else if (offset + len > extent->bytes) answer_ = resize(extent, offset + len);
    if (answer_ == 0) memcpy(extent->data + offset, buf, len);
  });
}
static int32_t sync_(void *userdata, void *handle) {
  (void)handle;
  return ((struct host *)userdata)->refuse_writes ? -EIO : 0;
}
static int32_t sync_names(void *userdata) {
  (void)userdata;
  return 0;
}
static int32_t size(void *userdata, void *handle, uint64_t *bytes_out) {
  (void)userdata;
  *bytes_out = ((struct extent *)handle)->bytes;
  return 0;
}
static int32_t set_size(void *userdata, void *handle, uint64_t bytes) {
  struct host *host = userdata;
  LOCKED(host, { answer_ = resize(handle, bytes); });
}
static int32_t lock(void *userdata, uint32_t kind) {
  struct host *host = userdata;
  CHECK(kind >= CDP_LOCK_OWNER && kind <= CDP_LOCK_READERS_OUT);
  LOCKED(host, { host->locks++; });
}
static void unlock(void *userdata, uint32_t kind) {
  struct host *host = userdata;
  (void)kind;
  pthread_mutex_lock(&host->lock);
  host->locks--;
  pthread_mutex_unlock(&host->lock);
}
static void free_(void *userdata) { ((struct host *)userdata)->freed++; }

static uint64_t now(void *userdata) {
  struct host *host = userdata;
  pthread_mutex_lock(&host->lock);
  uint64_t time = host->now += 1000;
  pthread_mutex_unlock(&host->lock);
  return time;
}

static cdp_storage_calls calls_of(struct host *host) {
  cdp_storage_calls calls;
  CDP_INIT(calls);
  calls.userdata = host;
  calls.create = create;
  calls.open = open_;
  calls.close = close_;
  calls.list = list;
  calls.remove = remove_;
  calls.sync_names = sync_names;
  calls.read = read_;
  calls.write = write_;
  calls.sync = sync_;
  calls.size = size;
  calls.set_size = set_size;
  calls.allocated = size;
  calls.lock = lock;
  calls.unlock = unlock;
  calls.free_userdata = free_;
  return calls;
}

static struct host host, clock_host;

int main(int argc, char **argv) {
  static unsigned char block[BLOCK];
  cdp_storage_calls calls = calls_of(&host);
  cdp_storage *storage = NULL;
  cdp_create_options create_options;
  cdp_open_options options;
  cdp_clock clock;
  cdp_store *store = NULL, *second = NULL;
  cdp_volume *volume = NULL;
  cdp_point point;
  char path[64];
  (void)in_directory(path, sizeof path, argc, argv, "");
  pthread_mutex_init(&host.lock, NULL);
  pthread_mutex_init(&clock_host.lock, NULL);
  clock_host.now = 1000000000;
  /* What is required is looked for, and what was lent comes back at once. */
  calls.read = NULL;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_storage_open_custom(&calls, &storage));
  CHECK(storage == NULL && host.freed == 1 && strstr(cdp_last_error_message(), "read") != NULL);
  host.freed = 0;
  calls.read = read_;
  OK(cdp_storage_open_custom(&calls, &storage));
  CDP_INIT(clock);
  CDP_INIT(options);
  CDP_INIT(create_options);
  clock.userdata = &clock_host;
  clock.now_ns = now;
  clock.monotonic_ns = now;
  clock.free_userdata = free_;
  options.storage = storage;
  options.clock = &clock;
  options.segment_bytes = 1 << 20;
  create_options.bytes = DISK;
  create_options.open = &options;
  OK(cdp_store_create(NULL, &create_options, &store));
  CHECK(host.locks == 1);
  options.clock = NULL;
  EXPECT(CDP_ERR_BUSY, cdp_store_open(NULL, &options, &second));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_open("both", &options, &second));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_open(NULL, NULL, &second));
  OK(cdp_volume_open(store, NULL, &volume));
  fill(block, BLOCK, 1);
  OK(cdp_volume_write(volume, 0, block, BLOCK, CDP_WRITE_FUA, NULL));
  OK(cdp_resolve(store, "latest", &point));
  CHECK(point.time_ns > 1000000000 && point.time_ns < 1100000000);
  /* A storage that fails: the errno of the host comes through, and nothing that was acknowledged is lost. */
  host.refuse_writes = 1;
  fill(block, BLOCK, 2);
  cdp_status status = cdp_volume_write(volume, BLOCK, block, BLOCK, CDP_WRITE_FUA, NULL);
  CHECK(status < 0 && cdp_status_errno(status) > 0);
  host.refuse_writes = 0;
  for (int tries = 0; tries < 100 && cdp_store_flush(store, NULL) != CDP_OK; tries++) {
  }
  OK(cdp_store_close(&store));
  CHECK(clock_host.freed == 1 && host.locks == 0 && host.freed == 0);
  OK(cdp_store_open(NULL, &options, &store));
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_read(volume, 0, block, BLOCK));
  CHECK(is_all(block, BLOCK, 1));
  /* The storage is handed back when the store is closed too, and not before. */
  OK(cdp_storage_close(&storage));
  CHECK(host.freed == 0);
  OK(cdp_store_close(&store));
  CHECK(host.freed == 1 && host.opened == host.closed);
  for (int at = 0; at < EXTENTS; at++) free(host.extents[at].data);
  return 0;
}
