/* The host supplies everything: storage, clock. What it refuses comes back with its errno, and what it lent is handed back once. */
#include "memory_storage.h"

enum { DISK = 1 << 20 };

static uint64_t now(void *userdata) {
  struct host *host = userdata;
  pthread_mutex_lock(&host->lock);
  uint64_t time = host->now += 1000;
  pthread_mutex_unlock(&host->lock);
  return time;
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
