/* cdp.h - block-level continuous data protection.
 *
 * Generated from cdp-ffi; do not edit. So far this header tells the version of the library and names its status codes;
 * stores, volumes and points follow.
 *
 * Conventions
 *   Result    0 is success, negative is an error.
 *   Threads   Every function may be called from any thread at any time.
 *   Memory    Strings that are returned live as long as the program.
 */

#ifndef CDP_H
#define CDP_H

#include <stdint.h>

// Major version of the library.
#define CDP_VERSION_MAJOR 0

// Minor version of the library.
#define CDP_VERSION_MINOR 1

// Patch version of the library.
#define CDP_VERSION_PATCH 0

// Version of the binary interface.
#define CDP_ABI_VERSION 1

// Outcome of a call: 0 is success, negative is an error.
typedef int32_t cdp_status;

// Success.
#define CDP_OK 0

// An argument is outside of what is allowed.
#define CDP_ERR_INVALID_ARGUMENT -1

// Offset or length is not a multiple of 512.
#define CDP_ERR_UNALIGNED -2

// The range reaches past the end of the volume.
#define CDP_ERR_OUT_OF_RANGE -3

// Not available in this version or for this store.
#define CDP_ERR_UNSUPPORTED -5

// The storage failed.
#define CDP_ERR_IO -10

// Bytes on the storage are not what was written.
#define CDP_ERR_CORRUPT -11

// The store has a format that this version does not know.
#define CDP_ERR_FORMAT_VERSION -12

// There is no space left for the journal.
#define CDP_ERR_JOURNAL_FULL -13

// An earlier failure makes it unsafe to go on.
#define CDP_ERR_POISONED -14

// There is no such thing.
#define CDP_ERR_NOT_FOUND -20

// There is such a thing already.
#define CDP_ERR_EXISTS -21

// The bookmark is locked.
#define CDP_ERR_LOCKED -22

// The store was opened read-only.
#define CDP_ERR_READ_ONLY -23

// Another owner has the store.
#define CDP_ERR_BUSY -24

// The point cannot be opened.
#define CDP_ERR_POINT_EXPIRED -30

// A defect in this library.
#define CDP_ERR_PANIC -90

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Version of the library as one number: major * 1000000 + minor * 1000 + patch.
uint32_t cdp_version_number(void);

// Version of the library as text, such as "0.1.0".
const char *cdp_version_string(void);

// Version of the binary interface.
uint32_t cdp_abi_version(void);

// Stable name of a status code, such as "CDP_ERR_IO"; "CDP_ERR_UNKNOWN" for a code that is none.
const char *cdp_status_name(cdp_status status);

// A positive errno with which a host can complete an I/O, 0 for success.
int32_t cdp_status_errno(cdp_status status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CDP_H */
