/* A store on one flat device that the host supplies, and on a file: it is there again, it runs full with a clear status, and what is damaged or in use
 * is refused. */
#include "check.h"

#include <errno.h>
#include <pthread.h>

enum { DEVICE = 24 << 20, DISK = 4 << 20, SEGMENT = 4 << 20 };

/* A device in memory. */
static struct {
  pthread_mutex_t lock;
  unsigned char bytes[DEVICE];
  int syncs, freed;
} device = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int32_t read_(void *userdata, uint64_t offset, void *buf, size_t len) {
  (void)userdata;
  CHECK(offset % 512 == 0 && len % 512 == 0 && offset + len <= DEVICE);
  pthread_mutex_lock(&device.lock);
  memcpy(buf, device.bytes + offset, len);
  pthread_mutex_unlock(&device.lock);
  return 0;
}
static int32_t write_(void *userdata, uint64_t offset, const void *buf, size_t len) {
  (void)userdata;
  CHECK(offset % 512 == 0 && len % 512 == 0 && offset + len <= DEVICE);
  pthread_mutex_lock(&device.lock);
  memcpy(device.bytes + offset, buf, len);
  pthread_mutex_unlock(&device.lock);
  return 0;
}
static int32_t write_zeroes(void *userdata, uint64_t offset, uint64_t len) {
  (void)userdata;
  CHECK(offset + len <= DEVICE);
  pthread_mutex_lock(&device.lock);
  memset(device.bytes + offset, 0, len);
  pthread_mutex_unlock(&device.lock);
  return 0;
}
static int32_t sync_(void *userdata) {
  (void)userdata;
  pthread_mutex_lock(&device.lock);
  device.syncs++;
  pthread_mutex_unlock(&device.lock);
  return 0;
}
static int32_t size(void *userdata, uint64_t *bytes_out) {
  (void)userdata;
  *bytes_out = DEVICE;
  return 0;
}
static void free_(void *userdata) { (*(int *)userdata)++; }

static cdp_copy *the_device(void) {
  cdp_copy *copy = NULL;
  cdp_copy_calls calls;
  CDP_INIT(calls);
  calls.userdata = &device.freed;
  calls.read = read_;
  calls.write = write_;
  calls.write_zeroes = write_zeroes;
  calls.sync = sync_;
  calls.size = size;
  calls.free_userdata = free_;
  OK(cdp_copy_open_custom(&calls, &copy));
  return copy;
}

/* Makes or opens the store, and closes the storage, which it goes on using. */
static cdp_store *store_on(cdp_storage **storage, int is_new) {
  cdp_store *store = NULL;
  cdp_open_options open;
  cdp_create_options create;
  CDP_INIT(open);
  CDP_INIT(create);
  open.storage = *storage;
  open.segment_bytes = SEGMENT;
  create.bytes = DISK;
  create.open = &open;
  if (is_new) OK(cdp_store_create(NULL, &create, &store));
  else OK(cdp_store_open(NULL, &open, &store));
  OK(cdp_storage_close(storage));
  return store;
}

int main(int argc, char **argv) {
  static unsigned char block[BLOCK];
  char path[256];
  cdp_copy *copy = the_device();
  cdp_storage *storage = NULL, *second = NULL;
  cdp_flat_options options;
  cdp_store *store;
  cdp_volume *volume = NULL;
  cdp_status status = CDP_OK;
  uint64_t damage = 1, durable = 0;
  int written = 0;

  CDP_INIT(options);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_storage_open_flat(copy, &storage));
  options.slot_bytes = 5000;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_flat_format(copy, &options));
  options.slot_bytes = DEVICE;
  EXPECT(CDP_ERR_JOURNAL_FULL, cdp_flat_format(copy, &options));
  options.slot_bytes = 64 << 10;
  options.flags = 2;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_flat_format(copy, &options));
  options.flags = 0;
  OK(cdp_flat_format(copy, &options));
  EXPECT(CDP_ERR_EXISTS, cdp_flat_format(copy, &options));
  OK(cdp_storage_open_flat(copy, &storage));
  CHECK(device.syncs > 0);
  OK(cdp_copy_close(&copy));
  store = store_on(&storage, 1);
  OK(cdp_volume_open(store, NULL, &volume));
  /* Until it is full: what was durable before stays. */
  while (status == CDP_OK && written < 20000) {
    fill(block, BLOCK, written % 255 + 1);
    status = cdp_volume_write(volume, (uint64_t)(written % 512) * BLOCK, block, BLOCK, CDP_WRITE_FUA, &durable);
    written += status == CDP_OK;
  }
  CHECK(status == CDP_ERR_JOURNAL_FULL && cdp_status_errno(status) == 28 && written > 2000);
  (void)cdp_store_close(&store);
  CHECK(device.freed == 1);

  copy = the_device();
  OK(cdp_storage_open_flat(copy, &storage));
  store = store_on(&storage, 0);
  OK(cdp_volume_open(store, NULL, &volume));
  for (int at = written - 512; at < written; at++) {
    OK(cdp_volume_read(volume, (uint64_t)(at % 512) * BLOCK, block, BLOCK));
    CHECK(is_all(block, BLOCK, at % 255 + 1) || is_all(block, BLOCK, written % 255 + 1));
  }
  OK(cdp_store_check(store, CDP_CHECK_DEEP, NULL, &damage, NULL, 0));
  CHECK(damage == 0);
  (void)cdp_store_close(&store);

  /* Both tables damaged: refused, and given up only on demand. */
  device.bytes[BLOCK + 20] ^= 1;
  OK(cdp_storage_open_flat(copy, &storage));
  OK(cdp_storage_close(&storage));
  device.bytes[40] ^= 1;
  EXPECT(CDP_ERR_CORRUPT, cdp_storage_open_flat(copy, &storage));
  EXPECT(CDP_ERR_EXISTS, cdp_flat_format(copy, &options));
  options.flags = CDP_FLAT_OVERWRITE;
  OK(cdp_flat_format(copy, &options));
  OK(cdp_copy_close(&copy));
  CHECK(device.freed == 2);

  /* A file, for one process and one opening at a time. */
  in_directory(path, sizeof path, argc, argv, "flat.img");
  EXPECT(CDP_ERR_NOT_FOUND, cdp_flat_format_file(path, NULL));
  OK(cdp_copy_create_file(path, 64 << 20, &copy));
  OK(cdp_copy_close(&copy));
  OK(cdp_flat_format_file(path, NULL));
  OK(cdp_storage_open_flat_file(path, &storage));
  EXPECT(CDP_ERR_BUSY, cdp_storage_open_flat_file(path, &second));
  EXPECT(CDP_ERR_BUSY, cdp_flat_format_file(path, &options));
  store = store_on(&storage, 1);
  OK(cdp_volume_open(store, NULL, &volume));
  fill(block, BLOCK, 9);
  OK(cdp_volume_write(volume, BLOCK, block, BLOCK, 0, NULL));
  OK(cdp_store_close(&store));
  OK(cdp_storage_open_flat_file(path, &storage));
  store = store_on(&storage, 0);
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_read(volume, BLOCK, block, BLOCK));
  CHECK(is_all(block, BLOCK, 9));
  OK(cdp_store_close(&store));
  return 0;
}
