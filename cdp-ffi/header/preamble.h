/* cdp.h - block-level continuous data protection.
 *
 * Generated from cdp-ffi; do not edit. docs/c-api.md is the guide.
 *
 * Conventions, once for the whole header
 *   Units     Offsets and lengths are bytes, on a volume multiples of 512. Times are nanoseconds since the Unix epoch, UTC.
 *             A seq names a point in history: the state after that write. Seq 0 is the state before the first write.
 *   Result    0 is success; CDP_END (1) is success with nothing more; negative is an error. Text and errno of the thread's
 *             last failed call: cdp_last_error_*.
 *   Outputs   Named *_out. On failure a handle output is NULL and every other output is untouched, except where a size needed
 *             is reported. NULL means "not wanted" where the text says so; nowhere else.
 *   Handles   *_open, *_create and *_start give ownership; *_close and *_stop take it, set the variable to NULL, and accept
 *             NULL. A handle is a number and not an address: NULL, one of another kind and one that was closed are errors
 *             (CDP_ERR_INVALID_ARGUMENT, CDP_ERR_CLOSED). What comes from a store is closed with it. Other pointers are
 *             borrowed for the call. Handles do not survive fork().
 *   Threads   [any thread] says that any threads may use one handle at once. The library starts threads only where a text says
 *             so, installs no signal handler, reads no environment variable, and writes nothing to stdout. What it keeps for
 *             the whole process is the table of handles, and a panic hook of Rust that is quiet inside of calls.
 *   Callbacks Pointers to functions with a userdata. They must not unwind (no C++ exception may leave them). Unless their text
 *             allows it they must not call the library: CDP_ERR_BUSY. free_userdata is called exactly once, by any thread, also
 *             when the call that took the struct fails, unless it fails because a struct_size is wrong.
 *   Structs   Those that begin with struct_size grow at the end only: CDP_INIT(variable) zeroes one and sets its size. Zero in
 *             a member means the default. Unknown flags, and members that only a newer header knows and that are not zero,
 *             are CDP_ERR_UNSUPPORTED. Other structs are frozen.
 *   Defects   A defect in this library becomes CDP_ERR_PANIC, and everything of that store answers CDP_ERR_POISONED until it is
 *             closed and opened again.
 */
#ifndef CDP_H
#define CDP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

// Zeroes a struct that begins with its size, and sets the size: CDP_INIT(variable).
static inline void cdp_struct_init(void *of, size_t bytes) {
  uint32_t size = (uint32_t)bytes;
  memset(of, 0, bytes);
  memcpy(of, &size, sizeof size);
}
#define CDP_INIT(variable) cdp_struct_init(&(variable), sizeof(variable))
