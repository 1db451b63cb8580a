/* What the tests of the C interface share. Each test is a program of its own: DIRECTORY is its only argument, and it ends with 0. */
#ifndef CHECK_H
#define CHECK_H

#include "cdp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                        \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition,   \
              cdp_last_error_message());                                                        \
      exit(1);                                                                                  \
    }                                                                                           \
  } while (0)

#define EXPECT(status, call)                                                                    \
  do {                                                                                          \
    cdp_status got_ = (call);                                                                   \
    if (got_ != (status)) {                                                                     \
      fprintf(stderr, "%s:%d: %s is %s and not %s (last error: %s)\n", __FILE__, __LINE__,      \
              #call, cdp_status_name(got_), cdp_status_name(status), cdp_last_error_message()); \
      exit(1);                                                                                  \
    }                                                                                           \
  } while (0)

#define OK(call) EXPECT(CDP_OK, call)

enum { BLOCK = 4096 };

static inline void fill(void *block, size_t len, int byte) { memset(block, byte, len); }

static inline int is_all(const unsigned char *bytes, size_t len, int byte) {
  for (size_t at = 0; at < len; at++)
    if (bytes[at] != (unsigned char)byte) return 0;
  return 1;
}

static inline char *in_directory(char *to, size_t len, int argc, char **argv, const char *name) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    exit(2);
  }
  snprintf(to, len, "%s/%s", argv[1], name);
  return to;
}

/* A new store with a volume "disk", in memory or, with a path, in files. */
static inline cdp_store *new_store(const char *path, uint64_t bytes) {
  cdp_store *store = NULL;
  cdp_storage *memory = NULL;
  cdp_open_options open;
  cdp_create_options create;
  CDP_INIT(open);
  CDP_INIT(create);
  if (path == NULL) {
    OK(cdp_storage_open_memory(0, &memory));
    open.storage = memory;
  }
  open.segment_bytes = 4 << 20;
  create.bytes = bytes;
  create.open = &open;
  OK(cdp_store_create(path, &create, &store));
  OK(cdp_storage_close(&memory));
  return store;
}

#endif
