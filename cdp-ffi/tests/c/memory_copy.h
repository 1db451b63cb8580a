/* Copies of a mirrored volume in memory, which fail when they are told to. */
#ifndef MEMORY_COPY_H
#define MEMORY_COPY_H

#include "check.h"

#include <errno.h>
#include <pthread.h>

enum { COPIES = 4 };

/* A copy in memory. */
struct memory {
  pthread_mutex_t lock;
  unsigned char *data;
  uint64_t bytes, changes;
  int fail_writes, fail_reads, freed;
};

static struct memory memory[COPIES];

static int32_t read_(void *userdata, uint64_t offset, void *buf, size_t len) {
  struct memory *copy = userdata;
  if (copy->fail_reads) return -EIO;
  pthread_mutex_lock(&copy->lock);
  memcpy(buf, copy->data + offset, len);
  pthread_mutex_unlock(&copy->lock);
  return 0;
}
static int32_t write_(void *userdata, uint64_t offset, const void *buf, size_t len) {
  struct memory *copy = userdata;
  if (copy->fail_writes) return -EREMOTEIO;
  pthread_mutex_lock(&copy->lock);
  memcpy(copy->data + offset, buf, len);
  copy->changes++;
  pthread_mutex_unlock(&copy->lock);
  return 0;
}
static int32_t write_zeroes(void *userdata, uint64_t offset, uint64_t len) {
  struct memory *copy = userdata;
  if (copy->fail_writes) return -EREMOTEIO;
  pthread_mutex_lock(&copy->lock);
  memset(copy->data + offset, 0, len);
  copy->changes++;
  pthread_mutex_unlock(&copy->lock);
  return 0;
}
static int32_t sync_(void *userdata) { return ((struct memory *)userdata)->fail_writes ? -EREMOTEIO : 0; }
static int32_t size(void *userdata, uint64_t *bytes_out) {
  *bytes_out = ((struct memory *)userdata)->bytes;
  return 0;
}
static int32_t set_size(void *userdata, uint64_t bytes, uint32_t *zeroes_out) {
  struct memory *copy = userdata;
  unsigned char *data = realloc(copy->data, bytes);
  if (data == NULL) return -ENOSPC;
  if (bytes > copy->bytes) memset(data + copy->bytes, 0, bytes - copy->bytes);
  copy->data = data;
  copy->bytes = bytes;
  *zeroes_out = 1;
  return 0;
}
static int32_t is_zero(void *userdata, uint32_t *zero_out) {
  struct memory *copy = userdata;
  *zero_out = (uint32_t)is_all(copy->data, copy->bytes, 0);
  return 0;
}
static int32_t change_stamp(void *userdata, uint64_t *stamp_out) {
  *stamp_out = ((struct memory *)userdata)->changes;
  return 0;
}
static void free_(void *userdata) { ((struct memory *)userdata)->freed++; }

static cdp_copy_calls calls_of(int number) {
  cdp_copy_calls calls;
  CDP_INIT(calls);
  calls.userdata = &memory[number];
  calls.read = read_;
  calls.write = write_;
  calls.write_zeroes = write_zeroes;
  calls.sync = sync_;
  calls.size = size;
  calls.set_size = set_size;
  calls.is_zero = is_zero;
  calls.change_stamp = change_stamp;
  calls.free_userdata = free_;
  return calls;
}

static cdp_copy *copy_of(int number) {
  cdp_copy_calls calls = calls_of(number);
  cdp_copy *copy = NULL;
  OK(cdp_copy_open_custom(&calls, &copy));
  return copy;
}

#endif
