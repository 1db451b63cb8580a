/* A storage of the host in memory, for tests. */
#ifndef MEMORY_STORAGE_H
#define MEMORY_STORAGE_H

#include "check.h"

#include <errno.h>
#include <pthread.h>

enum { EXTENTS = 64 };

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

static inline struct extent *named(struct host *host, uint64_t id) {
  for (int at = 0; at < EXTENTS; at++)
    if (host->extents[at].named && host->extents[at].id == id) return &host->extents[at];
  return NULL;
}

static inline int resize(struct extent *extent, uint64_t bytes) {
  unsigned char *data = realloc(extent->data, bytes ? bytes : 1);
  if (data == NULL) return -ENOSPC;
  if (bytes > extent->bytes) memset(data + extent->bytes, 0, bytes - extent->bytes);
  extent->data = data;
  extent->bytes = bytes;
  return 0;
}

static inline void let_go(struct extent *extent) {
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

static inline int32_t create(void *userdata, uint64_t id, uint64_t bytes, void **handle_out) {
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
static inline int32_t open_(void *userdata, uint64_t id, void **handle_out) {
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
static inline void close_(void *userdata, void *handle) {
  struct host *host = userdata;
  struct extent *extent = handle;
  pthread_mutex_lock(&host->lock);
  extent->open--;
  host->closed++;
  let_go(extent);
  pthread_mutex_unlock(&host->lock);
}
static inline int32_t list(void *userdata, uint64_t *ids_out, size_t capacity, size_t *count_out) {
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
static inline int32_t remove_(void *userdata, uint64_t id) {
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
static inline int32_t read_(void *userdata, void *handle, uint64_t offset, void *buf, size_t len) {
  struct host *host = userdata;
  struct extent *extent = handle;
  LOCKED(host, {
    if (offset > extent->bytes || len > extent->bytes - offset) answer_ = -EIO;
    else memcpy(buf, extent->data + offset, len);
  });
}
static inline int32_t write_(void *userdata, void *handle, uint64_t offset, const void *buf, size_t len) {
  struct host *host = userdata;
  struct extent *extent = handle;
  LOCKED(host, {
    if (host->refuse_writes) answer_ = -EDQUOT;
    else if (offset + len > extent->bytes) answer_ = resize(extent, offset + len);
    if (answer_ == 0) memcpy(extent->data + offset, buf, len);
  });
}
static inline int32_t sync_(void *userdata, void *handle) {
  (void)handle;
  return ((struct host *)userdata)->refuse_writes ? -EIO : 0;
}
static inline int32_t sync_names(void *userdata) {
  (void)userdata;
  return 0;
}
static inline int32_t size(void *userdata, void *handle, uint64_t *bytes_out) {
  (void)userdata;
  *bytes_out = ((struct extent *)handle)->bytes;
  return 0;
}
static inline int32_t set_size(void *userdata, void *handle, uint64_t bytes) {
  struct host *host = userdata;
  LOCKED(host, { answer_ = resize(handle, bytes); });
}
static inline int32_t lock(void *userdata, uint32_t kind) {
  struct host *host = userdata;
  CHECK(kind >= CDP_LOCK_OWNER && kind <= CDP_LOCK_READERS_OUT);
  LOCKED(host, { host->locks++; });
}
static inline void unlock(void *userdata, uint32_t kind) {
  struct host *host = userdata;
  (void)kind;
  pthread_mutex_lock(&host->lock);
  host->locks--;
  pthread_mutex_unlock(&host->lock);
}
static inline void free_(void *userdata) { ((struct host *)userdata)->freed++; }

static inline cdp_storage_calls calls_of(struct host *host) {
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

#endif
