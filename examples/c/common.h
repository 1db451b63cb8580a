/* What the examples share: a call that fails ends the program, with what the library says of it. */
#ifndef COMMON_H
#define COMMON_H

#include <cdp.h>
#include <stdio.h>
#include <stdlib.h>

static inline void must_at(cdp_status status, const char *what, int line) {
  if (status < 0) {
    fprintf(stderr, "line %d: %s: %s: %s\n", line, what, cdp_status_name(status), cdp_last_error_message());
    exit(1);
  }
}
#define MUST(call) must_at((call), #call, __LINE__)

static inline void expect_at(int holds, const char *what, int line) {
  if (!holds) {
    fprintf(stderr, "line %d: this should be so: %s\n", line, what);
    exit(1);
  }
}
#define EXPECT(condition) expect_at((condition), #condition, __LINE__)

#endif
