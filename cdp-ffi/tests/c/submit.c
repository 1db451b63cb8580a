/* A storage of the host that takes requests and ends them later: from threads of the host, by polling in one thread alone, at once, and wrongly. */
#include "memory_storage.h"

enum { DISK = 1 << 20, WAITING = 64, WORKERS = 3 };

/* The requests that were taken. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  cdp_io waiting[WAITING];
  int count, stop, polls, submitted, refuse, fail, twice;
} row = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static struct host host;

static int32_t carry_out(const cdp_io *io) {
  CHECK(io->struct_size >= sizeof *io && io->completion != NULL);
  switch (io->op) {
    case CDP_IO_READ: return read_(&host, io->handle, io->offset, io->buf, io->len);
    case CDP_IO_WRITE: return write_(&host, io->handle, io->offset, io->buf, io->len);
    case CDP_IO_SYNC:
      CHECK(io->buf == NULL && io->len == 0 && io->offset == 0);
      return sync_(&host, io->handle);
    default: return -ENOSYS;
  }
}

static void complete(const cdp_io *io) {
  pthread_mutex_lock(&row.lock);
  int32_t result = row.fail ? -EREMOTEIO : 0;
  int twice = row.twice;
  pthread_mutex_unlock(&row.lock);
  if (result == 0) result = carry_out(io);
  OK(cdp_io_complete(io->completion, result));
  if (twice) EXPECT(CDP_ERR_CLOSED, cdp_io_complete(io->completion, 0));
}

/* With the last one first, so that the order of ends is not that of beginnings. */
static int take(cdp_io *io) {
  if (row.count == 0) return 0;
  *io = row.waiting[--row.count];
  return 1;
}

static int32_t submit(void *userdata, const cdp_io *io) {
  int32_t answer = 0;
  CHECK(userdata == &host);
  pthread_mutex_lock(&row.lock);
  row.submitted++;
  if (row.refuse || row.count == WAITING) answer = -EAGAIN;
  else row.waiting[row.count++] = *io;
  pthread_cond_signal(&row.changed);
  pthread_mutex_unlock(&row.lock);
  return answer;
}

static int32_t submit_at_once(void *userdata, const cdp_io *io) {
  (void)userdata;
  complete(io);
  return 0;
}

static void poll_(void *userdata) {
  cdp_io io;
  CHECK(userdata == &host);
  pthread_mutex_lock(&row.lock);
  row.polls++;
  int taken = take(&io);
  pthread_mutex_unlock(&row.lock);
  if (taken) complete(&io);
  /* Nothing else may be called here. */
  EXPECT(CDP_ERR_BUSY, cdp_storage_open_memory(0, NULL));
}

static void *work(void *unused) {
  cdp_io io;
  pthread_mutex_lock(&row.lock);
  for (;;) {
    while (row.count == 0 && !row.stop) pthread_cond_wait(&row.changed, &row.lock);
    if (!take(&io)) break;
    pthread_mutex_unlock(&row.lock);
    complete(&io);
    pthread_mutex_lock(&row.lock);
  }
  pthread_mutex_unlock(&row.lock);
  return unused;
}

static cdp_storage *storage_with(int32_t (*submit_with)(void *, const cdp_io *), void (*poll_with)(void *)) {
  cdp_storage *storage = NULL;
  cdp_storage_calls calls = calls_of(&host);
  calls.read = NULL;
  calls.write = NULL;
  calls.sync = NULL;
  calls.lock = NULL;
  calls.unlock = NULL;
  calls.submit = submit_with;
  calls.poll = poll_with;
  OK(cdp_storage_open_custom(&calls, &storage));
  return storage;
}

/* Makes a store, writes, and finds it again. */
static void write_and_read(cdp_storage *storage, int with_runner) {
  static unsigned char block[BLOCK];
  cdp_create_options create;
  cdp_open_options open;
  cdp_store *store = NULL;
  cdp_runner *runner = NULL;
  cdp_volume *volume = NULL;
  cdp_point point;
  CDP_INIT(create);
  CDP_INIT(open);
  open.storage = storage;
  open.segment_bytes = 4 << 20;
  create.bytes = DISK;
  create.open = &open;
  OK(cdp_store_create(NULL, &create, &store));
  if (with_runner) OK(cdp_runner_start(store, 0, &runner));
  OK(cdp_volume_open(store, NULL, &volume));
  for (int at = 0; at < 600; at++) {
    fill(block, BLOCK, at % 255 + 1);
    OK(cdp_volume_write(volume, (uint64_t)(at % 256) * BLOCK, block, BLOCK, at % 100 == 0 ? CDP_WRITE_FUA : 0, NULL));
  }
  OK(cdp_bookmark_create(store, "here", NULL, NULL, NULL));
  OK(cdp_store_close(&store));
  OK(cdp_store_open(NULL, &open, &store));
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_resolve(store, "bookmark:here", &point));
  for (int at = 600 - 256; at < 600; at++) {
    OK(cdp_volume_read(volume, (uint64_t)(at % 256) * BLOCK, block, BLOCK));
    CHECK(is_all(block, BLOCK, at % 255 + 1));
  }
  /* What the host answers comes through, and what was acknowledged is there afterwards. */
  pthread_mutex_lock(&row.lock);
  row.fail = 1;
  pthread_mutex_unlock(&row.lock);
  fill(block, BLOCK, 77);
  cdp_status status = cdp_volume_write(volume, 0, block, BLOCK, CDP_WRITE_FUA, NULL);
  CHECK(status < 0 && cdp_status_errno(status) > 0 && cdp_last_error_errno() == EREMOTEIO);
  pthread_mutex_lock(&row.lock);
  row.fail = 0;
  row.refuse = 1;
  pthread_mutex_unlock(&row.lock);
  status = cdp_store_flush(store, NULL);
  pthread_mutex_lock(&row.lock);
  row.refuse = 0;
  pthread_mutex_unlock(&row.lock);
  for (int tries = 0; tries < 100 && cdp_store_flush(store, NULL) != CDP_OK; tries++) {
  }
  OK(cdp_store_close(&store));
}

static void end_of(cdp_storage *storage) {
  OK(cdp_storage_close(&storage));
  CHECK(host.freed == 1 && host.opened == host.closed);
  for (int at = 0; at < EXTENTS; at++) free(host.extents[at].data);
  memset(&host, 0, sizeof host);
  pthread_mutex_init(&host.lock, NULL);
}

int main(int argc, char **argv) {
  pthread_t workers[WORKERS];
  cdp_storage *storage = NULL;
  cdp_storage_calls calls;
  char path[64];
  (void)in_directory(path, sizeof path, argc, argv, "");
  pthread_mutex_init(&host.lock, NULL);

  calls = calls_of(&host);
  calls.poll = poll_;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_storage_open_custom(&calls, &storage));
  host.freed = 0;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_io_complete(NULL, 0));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_io_complete((cdp_completion *)(uintptr_t)12345, 0));

  /* One thread alone: it submits, and it polls. */
  storage = storage_with(submit, poll_);
  write_and_read(storage, 0);
  CHECK(row.polls > 0 && row.submitted > 0);
  end_of(storage);

  /* Threads of the host, and those of the runner. */
  row.twice = 1;
  for (int at = 0; at < WORKERS; at++) CHECK(pthread_create(&workers[at], NULL, work, NULL) == 0);
  storage = storage_with(submit, NULL);
  write_and_read(storage, 1);
  end_of(storage);
  pthread_mutex_lock(&row.lock);
  row.stop = 1;
  pthread_cond_broadcast(&row.changed);
  pthread_mutex_unlock(&row.lock);
  for (int at = 0; at < WORKERS; at++) pthread_join(workers[at], NULL);

  /* Ended before submit returns. */
  storage = storage_with(submit_at_once, NULL);
  write_and_read(storage, 0);
  end_of(storage);
  return 0;
}
