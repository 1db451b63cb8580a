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

/* ---- version ----------------------------------------------------------------------------------------------------- */

// Major version of the library.
#define CDP_VERSION_MAJOR 0

// Minor version of the library.
#define CDP_VERSION_MINOR 1

// Patch version of the library.
#define CDP_VERSION_PATCH 0

// Version of the binary interface.
#define CDP_ABI_VERSION 1

// Version of the library as one number: major * 1000000 + minor * 1000 + patch.
uint32_t cdp_version_number(void);

// Version of the library as text, such as "0.1.0". The text lives as long as the program.
const char *cdp_version_string(void);

// Version of the binary interface: a program that was compiled against another number must not go on.
uint32_t cdp_abi_version(void);

/* ---- types ------------------------------------------------------------------------------------------------------- */

// A point of the timeline: the state after write `seq`, which was made at `time_ns`, nanoseconds since the Unix epoch, UTC.
typedef struct cdp_point {
  // The seq.
  uint64_t seq;
  // Its time.
  uint64_t time_ns;
} cdp_point;

// A random identity.
typedef struct cdp_uuid {
  // The bytes of it.
  uint8_t bytes[16];
} cdp_uuid;

// One of several buffers that are one write; as struct iovec.
typedef struct cdp_iovec {
  // Where it begins.
  const void *base;
  // Its length, bytes.
  size_t len;
} cdp_iovec;

// A range of bytes of a volume.
typedef struct cdp_extent {
  // First byte.
  uint64_t offset;
  // Length, bytes.
  uint64_t len;
} cdp_extent;

// How the application takes back what its callbacks use: called exactly once, when they are not called any more. May be NULL.
typedef void (*cdp_free_userdata)(void *userdata);

/* ---- status ------------------------------------------------------------------------------------------------------ */

// Outcome of a call: 0 is success, 1 is success with nothing more to come, negative is an error.
typedef int32_t cdp_status;

// Success.
#define CDP_OK 0

// Success, and there is nothing more: the end of a list, nothing to do, a job that is done.
#define CDP_END 1

// An argument is outside of what is allowed; also NULL where that is not said to be allowed, and a handle that is none.
#define CDP_ERR_INVALID_ARGUMENT -1

// Offset or length is not a multiple of 512.
#define CDP_ERR_UNALIGNED -2

// The range reaches past the end of the volume.
#define CDP_ERR_OUT_OF_RANGE -3

// The buffer is too small; the size that is needed was reported.
#define CDP_ERR_BUFFER_TOO_SMALL -4

// Not available in this version or for this store.
#define CDP_ERR_UNSUPPORTED -5

// Memory could not be reserved, or there are too many handles.
#define CDP_ERR_NO_MEMORY -6

// A time lies before the newest write of the store.
#define CDP_ERR_TIME_BACKWARDS -7

// The storage or the source failed; cdp_last_error_errno tells more.
#define CDP_ERR_IO -10

// Bytes on the storage are not what was written.
#define CDP_ERR_CORRUPT -11

// The store has a format that this version does not know.
#define CDP_ERR_FORMAT_VERSION -12

// There is no space left for the journal. Nothing that was acknowledged is lost; try again when there is space.
#define CDP_ERR_JOURNAL_FULL -13

// An earlier failure makes it unsafe to go on: close the store and open it again.
#define CDP_ERR_POISONED -14

// The retention policy bounds the space of the store, and nothing more may be dropped.
#define CDP_ERR_OVER_BOUND -15

// A newer owner has taken over the store.
#define CDP_ERR_FENCED -16

// There is no such thing.
#define CDP_ERR_NOT_FOUND -20

// There is such a thing already.
#define CDP_ERR_EXISTS -21

// The bookmark is locked.
#define CDP_ERR_LOCKED -22

// The store was opened read-only.
#define CDP_ERR_READ_ONLY -23

// Another owner has the store, or the call is not allowed in a callback.
#define CDP_ERR_BUSY -24

// The handle, or the store that it belongs to, was closed.
#define CDP_ERR_CLOSED -25

// The bookmark found no place under the conditions asked for; nothing was recorded, and it may be tried again.
#define CDP_ERR_NOT_PLACED -26

// A source that nobody captures from was changed while it was compared.
#define CDP_ERR_SOURCE_CHANGED -27

// A mirror set has fewer copies than a write needs to be acknowledged.
#define CDP_ERR_TOO_FEW_COPIES -28

// The point cannot be opened: it was never written, was thinned away, or lies in a gap; cdp_last_error_nearest tells the nearest.
#define CDP_ERR_POINT_EXPIRED -30

// A dirty map is none, or is of something else: take everything for dirty.
#define CDP_ERR_MAP_REFUSED -33

// A mirror set or one of its copies cannot be used as it is; the message says why and what to do.
#define CDP_ERR_MIRROR_REFUSED -34

// A seed set does not fit the volume that was to take it over; the message says why and what to do. Nothing was changed.
#define CDP_ERR_SEED_REFUSED -35

// A defect in this library; the store is poisoned.
#define CDP_ERR_PANIC -90

// Stable name of a status code, such as "CDP_ERR_IO"; "CDP_ERR_UNKNOWN" for a code that is none. The text lives as long as the program.
const char *cdp_status_name(cdp_status status);

// A positive errno with which a host can complete an I/O, 0 for success. Numbers are those of Linux.
int32_t cdp_status_errno(cdp_status status);

// What the last failed call of this thread said, for people; "" before the first. Borrowed until this thread's next call that fails; a
// call that succeeds leaves it.
const char *cdp_last_error_message(void);

// The errno of the operating system or of a callback of the host that the last failed call of this thread met; 0 when there was none.
int32_t cdp_last_error_errno(void);

// After CDP_ERR_POINT_EXPIRED: the nearest points on both sides that can be opened. Either output may be NULL. A side without a point has
// the time UINT64_MAX. Returns CDP_ERR_NOT_FOUND, which is not noted as the thread's last failure, when the last failed call was another.
cdp_status cdp_last_error_nearest(cdp_point *before_out,
                                  cdp_point *after_out);

/* ---- storage ----------------------------------------------------------------------------------------------------- */

// The right to write, which one owner has at a time.
#define CDP_LOCK_OWNER 1

// The lease of a reader; any number at a time. It waits only for a removal of extents that is under way.
#define CDP_LOCK_LEASE 2

// Keeps readers out for the moment of a removal; refused with -EAGAIN while there is a lease.
#define CDP_LOCK_READERS_OUT 3

// Fill buf.
#define CDP_IO_READ 1

// Write buf, growing the extent when needed.
#define CDP_IO_WRITE 2

// Make every write and size of the extent durable that ended before this was submitted.
#define CDP_IO_SYNC 3

// Go through the page cache even where the file system could do without.
#define CDP_DIRECTORY_BUFFERED (1 << 0)

// What a host says with when a submitted request has ended.
typedef struct cdp_completion cdp_completion;

// Where the bytes of a store live.
typedef struct cdp_storage cdp_storage;

// A request to a storage of the application that need not wait.
typedef struct cdp_io {
  // Bytes of this struct that the library has filled.
  uint32_t struct_size;
  // CDP_IO_*.
  uint32_t op;
  // What create or open gave for the extent.
  void *handle;
  // First byte within the extent; 0 for CDP_IO_SYNC.
  uint64_t offset;
  // Where the data goes or comes from, the application's until the request is completed; not to be written for CDP_IO_WRITE; NULL for CDP_IO_SYNC.
  void *buf;
  // Its length, bytes; 0 for CDP_IO_SYNC.
  size_t len;
  // For cdp_io_complete, once.
  struct cdp_completion *completion;
} cdp_io;

// A storage that the application supplies: numbered extents.
//
// Every function returns 0 or a negative errno (-ENOENT and -EEXIST where an extent is missing or there, -ENOSPC when there is no space),
// may be called from any thread, several at once, and must not call the library or unwind. Writes that overlap in flight do not occur.
// Offsets and lengths of read and write are multiples of 4096, and so are addresses of buffers.
//
// Durability: a write and a size are durable once a sync that was begun after they returned has returned 0; a name once sync_names has.
// After a failed sync nothing is known of what it covered.
typedef struct cdp_storage_calls {
  // sizeof(cdp_storage_calls).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to every function.
  void *userdata;
  // Makes an extent of this many bytes that read as zeroes, with its space allocated, and opens it. Required.
  int32_t (*create)(void *userdata, uint64_t extent, uint64_t bytes, void **handle_out);
  // Opens an extent. Required.
  int32_t (*open)(void *userdata, uint64_t extent, void **handle_out);
  // Closes what create or open gave, once. May be NULL.
  void (*close)(void *userdata, void *handle);
  // Stores the numbers of all extents in any order, at most capacity of them, and how many there are in all. Required.
  int32_t (*list)(void *userdata, uint64_t *extents_out, size_t capacity, size_t *count_out);
  // Removes the name of an extent; handles that are open go on working. Required.
  int32_t (*remove)(void *userdata, uint64_t extent);
  // Makes created and removed names durable. NULL: they are when create and remove return.
  int32_t (*sync_names)(void *userdata);
  // Fills the buffer. A range that reaches past the end is an error. Required without submit.
  int32_t (*read)(void *userdata, void *handle, uint64_t offset, void *buf, size_t len);
  // Writes all of the buffer, growing the extent when needed. Required without submit.
  int32_t (*write)(void *userdata, void *handle, uint64_t offset, const void *buf, size_t len);
  // Makes every write and size of the extent durable that returned before. Required without submit.
  int32_t (*sync)(void *userdata, void *handle);
  // Size of the extent in bytes. Required.
  int32_t (*size)(void *userdata, void *handle, uint64_t *bytes_out);
  // Cuts or extends the extent; new bytes read as zeroes. Required.
  int32_t (*set_size)(void *userdata, void *handle, uint64_t bytes);
  // Bytes that the extent takes up. NULL: its size.
  int32_t (*allocated)(void *userdata, void *handle, uint64_t *bytes_out);
  // Takes a lock (CDP_LOCK_*) against other processes; -EAGAIN when another holds it. NULL: no other process uses the storage.
  int32_t (*lock)(void *userdata, uint32_t kind);
  // Gives a lock back. Required where lock is given.
  void (*unlock)(void *userdata, uint32_t kind);
  // Called exactly once, when nothing is called any more. May be NULL.
  cdp_free_userdata free_userdata;
  // Takes a request and returns, for an application that must not block in its functions: used instead of read, write and sync where it is
  // given. The struct is borrowed for the call. 0: taken, and cdp_io_complete is called for it exactly once, from any thread, also from
  // within submit or poll. A negative errno: not taken. The thread of the library that submitted waits for the end, however long that takes.
  int32_t (*submit)(void *userdata, const struct cdp_io *io);
  // Called over and over by a thread that waits for a request that it submitted: looks for requests that have ended and completes them, those of
  // other threads too; may wait for a moment. NULL: they are completed without that, from threads of the application. For submit alone.
  void (*poll)(void *userdata);
} cdp_storage_calls;

// Takes a storage that the application supplies, for any number of stores that are opened on it one after the other, or as one owner with
// readers beside it. The struct is copied; userdata must live until free_userdata is called, also when this call fails, which is then at
// once. [any thread; waits for nothing]
cdp_status cdp_storage_open_custom(const struct cdp_storage_calls *calls,
                                   struct cdp_storage **storage_out);

// Says that a request that was submitted has ended: 0, or a negative errno. Its buffer is the library's again, and the completion is used up.
// CDP_ERR_CLOSED when it was used up before. [any thread, also within submit and poll; waits for nothing]
cdp_status cdp_io_complete(struct cdp_completion *completion,
                           int32_t result);

// Makes a storage in memory of at most capacity_bytes bytes (0: no bound), for tests and tools. Nothing of it survives the process.
// [any thread; waits for nothing]
cdp_status cdp_storage_open_memory(uint64_t capacity_bytes,
                                   struct cdp_storage **storage_out);

// Opens a directory as a storage that any number of stores are opened on one after the other; cdp_store_create and cdp_store_open do this
// by themselves when they are given a path. The directory must be there. flags: CDP_DIRECTORY_*. [any thread; waits for the file system]
cdp_status cdp_storage_open_directory(const char *path,
                                      uint32_t flags,
                                      struct cdp_storage **storage_out);

// A storage whose writes are held to bytes_per_second, at least 1, on top of another one: what a journal that shares its disk with others may use. A burst of a
// tenth of a second is let through; reads and syncs pass. inner is borrowed for the call and may be closed then. [any thread; waits for nothing]
cdp_status cdp_storage_open_throttled(struct cdp_storage *inner,
                                      uint64_t bytes_per_second,
                                      struct cdp_storage **storage_out);

// Gives up a storage and sets the variable to NULL, which it may be already. Stores that are open on it go on working.
// [any thread; waits for nothing]
cdp_status cdp_storage_close(struct cdp_storage **storage);

/* ---- copies and devices ------------------------------------------------------------------------------------------ */

// Where one copy of a mirrored volume lives.
typedef struct cdp_copy cdp_copy;

// A copy that the application supplies.
//
// Every function returns 0 or a negative errno, may be called from any thread, several at once, and must not call the library or unwind. Two
// changes that touch the same 4 KiB are never in flight at once. Offsets and lengths are multiples of 512 within the size; buffers may lie
// anywhere.
//
// Durability: a write or zeroes are durable once a sync that was begun after they returned has returned 0. After a failed sync nothing is
// known of what it covered.
typedef struct cdp_copy_calls {
  // sizeof(cdp_copy_calls).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to every function.
  void *userdata;
  // Fills the buffer. Required.
  int32_t (*read)(void *userdata, uint64_t offset, void *buf, size_t len);
  // Writes all of the buffer. Required.
  int32_t (*write)(void *userdata, uint64_t offset, const void *buf, size_t len);
  // Makes a range read as zeroes; discards are zeroes too. Required.
  int32_t (*write_zeroes)(void *userdata, uint64_t offset, uint64_t len);
  // Makes every change durable that returned before. Required.
  int32_t (*sync)(void *userdata);
  // Size in bytes. Required.
  int32_t (*size)(void *userdata, uint64_t *bytes_out);
  // Gives the copy another size, durably, and stores 1 when new bytes are known to read as zeroes, else 0. -ENOSPC when it cannot be so large;
  // one that is large enough already may stay. NULL: its size does not change.
  int32_t (*set_size)(void *userdata, uint64_t bytes, uint32_t *zeroes_out);
  // Stores 1 when the whole copy is known to read as zeroes, without reading it, else 0. NULL: that is never known.
  int32_t (*is_zero)(void *userdata, uint32_t *zero_out);
  // Stores a number that is another one after the content was changed by anybody, such as the time of the last change. NULL: there is no such
  // thing.
  int32_t (*change_stamp)(void *userdata, uint64_t *stamp_out);
  // Called exactly once, when nothing is called any more. May be NULL.
  cdp_free_userdata free_userdata;
} cdp_copy_calls;

// Opens a raw file or block device that exists as a copy. Close it with cdp_copy_close. [any thread; waits for the file system]
cdp_status cdp_copy_open_file(const char *path,
                              struct cdp_copy **copy_out);

// Makes a sparse file of bytes zeroes, durably, and opens it as a copy. CDP_ERR_EXISTS when there is something of that name.
// [any thread; waits for the file system]
cdp_status cdp_copy_create_file(const char *path,
                                uint64_t bytes,
                                struct cdp_copy **copy_out);

// Takes a copy that the application supplies. The struct is copied; userdata must live until free_userdata is called, also when this call
// fails, which is then at once. [any thread; waits for nothing]
cdp_status cdp_copy_open_custom(const struct cdp_copy_calls *calls,
                                struct cdp_copy **copy_out);

// Gives up a copy and sets the variable to NULL, which it may be already. Mirror sets that have taken it go on with it.
// [any thread; waits for nothing]
cdp_status cdp_copy_close(struct cdp_copy **copy);

/* ---- storage on one flat device ---------------------------------------------------------------------------------- */

// What is on the device is given up; without it a device that holds a flat storage is left alone.
#define CDP_FLAT_OVERWRITE (1 << 0)

// How a flat storage is made.
typedef struct cdp_flat_options {
  // sizeof(cdp_flat_options).
  uint32_t struct_size;
  // CDP_FLAT_OVERWRITE.
  uint32_t flags;
  // Bytes of a slot: a multiple of 4096 up to 64 GiB; the device has at most 65536 of them. 0: 1 MiB.
  uint64_t slot_bytes;
} cdp_flat_options;

// Divides a device into slots that are all free, durably. The device is given as a copy (cdp_copy_open_custom, cdp_copy_open_file), borrowed for the
// call, and must be used by nobody else; options may be NULL. CDP_ERR_EXISTS when it holds a flat storage already. On other failures
// it may hold none any more. [any thread; waits for the device]
cdp_status cdp_flat_format(cdp_copy *device,
                           const struct cdp_flat_options *options);

// As cdp_flat_format, for a file that exists, of its size now, or a block device.
cdp_status cdp_flat_format_file(const char *path, const struct cdp_flat_options *options);

// Opens a flat storage, for any number of stores that are opened on it one after the other. The device goes on being used until the storage and its
// stores are closed, and must be used by nobody else meanwhile. A store on it needs segments of at least 4 MiB
// (cdp_open_options.segment_bytes) and, beside its history, room for two of them. CDP_ERR_NOT_FOUND when the device was not formatted, CDP_ERR_CORRUPT
// when both of its tables are damaged. When slots run out calls of the store answer CDP_ERR_JOURNAL_FULL. Close it with cdp_storage_close.
// [any thread; waits for the device]
cdp_status cdp_storage_open_flat(cdp_copy *device,
                                 cdp_storage **storage_out);

// As cdp_storage_open_flat, on a file or block device, which is locked against other processes: CDP_ERR_BUSY when one has it.
cdp_status cdp_storage_open_flat_file(const char *path,
                                      cdp_storage **storage_out);

/* ---- log --------------------------------------------------------------------------------------------------------- */

// Something is broken, and somebody has to look.
#define CDP_LOG_ERROR 1

// Protection is less than was asked for; the library mends it where it can.
#define CDP_LOG_WARNING 2

// As it should be.
#define CDP_LOG_INFO 3

// Where the lines of a log go. A line is an event (cdp_event_next gives those of a store with their kinds), or what the opening or the end of the
// store or mirror set has found.
typedef struct cdp_log_sink {
  // sizeof(cdp_log_sink).
  uint32_t struct_size;
  // Lines of this level and below: CDP_LOG_*. 0: all.
  uint32_t level_max;
  // Passed to the function.
  void *userdata;
  // Takes one line of len bytes of UTF-8 with a NUL behind them, borrowed for the call. Called from whatever thread is inside of the library,
  // those of the runner among them, one line at a time, while the store or the set waits; must not call the library or unwind. Required.
  void (*log)(void *userdata, uint32_t level, const char *message, size_t len);
  // Called exactly once, when nothing is called any more. May be NULL.
  cdp_free_userdata free_userdata;
} cdp_log_sink;

/* ---- store ------------------------------------------------------------------------------------------------------- */

// The store is opened for reading only, beside an owner if there is one, and seen as it is at that moment.
#define CDP_OPEN_READ_ONLY (1 << 0)

// The last owner closed the store in good order.
#define CDP_STORE_CLEAN (1 << 0)

// The store was opened for reading only.
#define CDP_STORE_READ_ONLY (1 << 1)

// Every write is a point.
#define CDP_COALESCE_NONE 0

// The last state of each interval of time is a point.
#define CDP_COALESCE_INTERVAL 1

// The state at each flush and bookmark is a point.
#define CDP_COALESCE_BARRIER 2

// Time does not move on by itself while nothing is written: for a host that dates writes itself and calls cdp_store_cover.
#define CDP_RUNNER_NO_HEARTBEAT (1 << 0)

// The threads of the bundled runner.
typedef struct cdp_runner cdp_runner;

// An open store: volumes that share one row of sequence numbers.
typedef struct cdp_store cdp_store;

// A clock that the application supplies. Its functions may be called from any thread and must not call the library or unwind.
typedef struct cdp_clock {
  // sizeof(cdp_clock).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to every function.
  void *userdata;
  // Nanoseconds since the Unix epoch, UTC; may step back. Required.
  uint64_t (*now_ns)(void *userdata);
  // Nanoseconds of a clock that nobody sets, from any beginning. NULL: there is none, and a jump of now_ns is believed.
  uint64_t (*monotonic_ns)(void *userdata);
  // Called exactly once, when nothing is called any more. May be NULL.
  cdp_free_userdata free_userdata;
} cdp_clock;

// How a store is opened. All zero but for the size is the default of everything.
typedef struct cdp_open_options {
  // sizeof(cdp_open_options).
  uint32_t struct_size;
  // CDP_OPEN_*.
  uint32_t flags;
  // CDP_DIRECTORY_*, for a path.
  uint32_t directory_flags;
  // 0.
  uint32_t reserved;
  // Where the store lives instead of a path, which is NULL then. Borrowed for the call; the store goes on using what it stands for.
  cdp_storage *storage;
  // The clock that dates writes. NULL: that of the system. The struct is copied.
  const struct cdp_clock *clock;
  // Budget of the cache of index pages, bytes. 0: 32 MiB.
  uint64_t page_cache_bytes;
  // Space of a new segment, bytes. 0: 64 MiB, which is also the most.
  uint64_t segment_bytes;
  // Where lines for people go. NULL: nowhere. The struct is copied.
  const cdp_log_sink *log;
} cdp_open_options;

// What a new store begins with.
typedef struct cdp_create_options {
  // sizeof(cdp_create_options).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Name of the first volume, of A-Z a-z 0-9 . _ -, 1 to 128 bytes. NULL: "disk".
  const char *volume;
  // Its size, bytes; a multiple of 512. Required.
  uint64_t bytes;
  // How it is opened. NULL: the default of everything. CDP_OPEN_READ_ONLY is refused.
  const struct cdp_open_options *open;
} cdp_create_options;

// What is known of a store.
typedef struct cdp_store_info {
  // sizeof(cdp_store_info).
  uint32_t struct_size;
  // CDP_STORE_*.
  uint32_t flags;
  // Its identity; a copy of its files has the same.
  cdp_uuid uuid;
  // Version of the format that this library writes.
  uint32_t format_version;
  // Volumes.
  uint32_t volumes;
  // The newest state.
  cdp_point newest;
  // Everything up to this seq survives a power cut.
  uint64_t durable_seq;
  // Frames of the tail that were cut off when the store was opened after an unclean end.
  uint64_t tail_frames;
  // Bytes of the tail that were cut off.
  uint64_t tail_bytes;
  // Places of damage that were met when the store was opened.
  uint64_t damage_count;
} cdp_store_info;

// Makes a new store with one empty volume, in a directory that does not exist yet or is empty, or on options.open.storage with path NULL, and
// opens it as its owner. Close it with cdp_store_close.
// On failure nothing is open; what was begun in the directory or storage is no store and may be removed. CDP_ERR_EXISTS where there is one.
// [any thread; waits for the storage]
cdp_status cdp_store_create(const char *path,
                            const struct cdp_create_options *options,
                            struct cdp_store **store_out);

// Opens a store as its owner, and recovers it if need be, or for reading only. Either path or options.storage is given. options may be NULL.
// CDP_ERR_BUSY while another owner has it; CDP_ERR_CORRUPT when what is damaged makes it unsafe to go on. On failure nothing is open and
// the store is as it was. [any thread; waits for the storage]
cdp_status cdp_store_open(const char *path,
                          const struct cdp_open_options *options,
                          struct cdp_store **store_out);

// Ends the store in good order and sets the variable to NULL, which it may be already: taps are ended, the runner is stopped, everything is
// made durable. Every handle that came from the store is closed with it and answers CDP_ERR_CLOSED from then on; calls that are under
// way on other threads end first or fail with CDP_ERR_POISONED. The store is closed whatever the status: on CDP_ERR_JOURNAL_FULL and
// CDP_ERR_IO something could not be made durable, and the next open recovers as after a crash. Call cdp_store_flush before where that matters.
// [any thread; CDP_ERR_BUSY from a callback, and nothing is closed; waits for the storage and the runner]
cdp_status cdp_store_close(struct cdp_store **store);

// What is known of the store. [any thread; waits for nothing]
cdp_status cdp_store_info_get(const struct cdp_store *store, struct cdp_store_info *info_out);

// Makes everything written so far durable, of all volumes; durable_seq_out, which may be NULL, is the seq up to which. On CDP_ERR_JOURNAL_FULL
// and CDP_ERR_IO it stays in memory and the next call tries again. [any thread; waits for the storage]
cdp_status cdp_store_flush(struct cdp_store *store,
                           uint64_t *durable_seq_out);

// Says that nothing else was written up to time_ns, so that points up to there can be opened, for a host that dates writes itself.
// [any thread; waits for nothing]
cdp_status cdp_store_cover(struct cdp_store *store,
                           uint64_t time_ns);

// Moves the clock of the store to now and makes it durable with everything written so far, so that any time up to now can be opened.
// The runner does this by itself once a second. [any thread; waits for the storage]
cdp_status cdp_store_heartbeat(struct cdp_store *store);

// Says that the clock of the host is right although it jumped by more than an hour: history is dropped by age again.
// [any thread; waits for nothing]
cdp_status cdp_store_confirm_clock(struct cdp_store *store);

// How writes are coalesced from the next one on (CDP_COALESCE_*): what is overwritten within an interval is not stored. interval_ns is for
// CDP_COALESCE_INTERVAL and 0 otherwise. Durable when it returns. [any thread; waits for the storage]
cdp_status cdp_store_set_coalescing(struct cdp_store *store,
                                    uint32_t mode,
                                    uint64_t interval_ns);

// How writes are coalesced now: CDP_COALESCE_*, and the length of the interval, which is 0 but for CDP_COALESCE_INTERVAL. Either output may be NULL.
// [any thread; waits for nothing]
cdp_status cdp_store_coalescing_get(const struct cdp_store *store,
                                    uint32_t *mode_out,
                                    uint64_t *interval_ns_out);

// Does one slice of background work, for a host without a runner: commits what is older than 200 ms, makes the next segment ready, seals,
// merges at most entries_max index entries (0: 65536), takes over what taps captured, resyncs a piece, sets the bookmark that is due.
// CDP_OK: there is more to do at once; CDP_END: nothing is due. What failed is tried again by a later call.
// [any thread; waits for the storage and for sources of taps]
cdp_status cdp_store_step(struct cdp_store *store,
                          uint64_t entries_max);

// What is due of retention by the clock of the store; the runner does this by itself, a host that steps calls it now and then.
// CDP_OK: something was planned, which later steps carry out; CDP_END: nothing was due. [any thread; waits for the storage]
cdp_status cdp_store_step_retention(struct cdp_store *store);

// Starts the bundled runner: threads that do the background work until cdp_runner_stop or cdp_store_close. These are the only threads that
// outlive a call. flags: CDP_RUNNER_*. A defect in one of them ends it and is an event.
// [any thread; waits for the start of threads]
cdp_status cdp_runner_start(struct cdp_store *store,
                            uint32_t flags,
                            struct cdp_runner **runner_out);

// Stops the runner, when what it is at is finished, and sets the variable to NULL, which it may be already.
// [any thread; CDP_ERR_BUSY from a callback; waits for the threads]
cdp_status cdp_runner_stop(struct cdp_runner **runner);

/* ---- volume ------------------------------------------------------------------------------------------------------ */

// The write is durable when the call returns.
#define CDP_WRITE_FUA (1 << 0)

// A volume of an open store.
typedef struct cdp_volume cdp_volume;

// What is known of a volume.
typedef struct cdp_volume_info {
  // sizeof(cdp_volume_info).
  uint32_t struct_size;
  // Its id within the store; never reused.
  uint32_t id;
  // Its size now, bytes.
  uint64_t bytes;
  // The first seq at which it can be opened.
  uint64_t exists_from;
  // Its name, NUL-terminated.
  char name[136];
} cdp_volume_info;

// Adds an empty volume of this many bytes, a multiple of 512, and opens it. It exists from the newest seq on; durable when this returns.
// On failure there is no such volume. [any thread; waits for the storage]
cdp_status cdp_volume_create(cdp_store *store,
                             const char *name,
                             uint64_t bytes,
                             struct cdp_volume **volume_out);

// Opens a volume by name; NULL: the first one. Close it with cdp_volume_close. [any thread; waits for nothing]
cdp_status cdp_volume_open(const cdp_store *store,
                           const char *name,
                           struct cdp_volume **volume_out);

// Gives up the handle and sets the variable to NULL, which it may be already. What was written stays, durable or not.
// [any thread; waits for nothing]
cdp_status cdp_volume_close(struct cdp_volume **volume);

// The volume at a place in the list of the store, counted from 0 in the order in which they were made. CDP_END past the last.
// [any thread; waits for nothing]
cdp_status cdp_volume_at(const cdp_store *store,
                         size_t index,
                         struct cdp_volume_info *info_out);

// What is known of the volume. [any thread; waits for nothing]
cdp_status cdp_volume_info_get(const struct cdp_volume *volume, struct cdp_volume_info *info_out);

// Gives the volume another size, a multiple of 512. Points before the change keep the old size and all of their content. point_out, which may
// be NULL, is the point of the change, or the newest one when the volume had that size already. Refused while a tap captures the volume.
// On failure the volume has either size. [any thread; waits for the storage]
cdp_status cdp_volume_resize(struct cdp_volume *volume,
                             uint64_t bytes,
                             cdp_point *point_out);

// Appends one write of 512 bytes to 16 MiB, dated now. offset and len are multiples of 512. Reads see it at once; it is durable when a flush
// has returned seq_out or a later seq, or at once with CDP_WRITE_FUA in flags. seq_out may be NULL. The buffer is borrowed for the call.
// On failure nothing was written, except that with CDP_WRITE_FUA the failure may be that of making it durable.
// [any thread, several at once; waits for the storage only when too much is not written yet, or with CDP_WRITE_FUA]
cdp_status cdp_volume_write(struct cdp_volume *volume,
                            uint64_t offset,
                            const void *buf,
                            size_t len,
                            uint32_t flags,
                            uint64_t *seq_out);

// As cdp_volume_write, dated by the host, for hosts whose writes have times of their own. CDP_ERR_TIME_BACKWARDS for a time before the newest write of the
// store.
cdp_status cdp_volume_write_at_time(struct cdp_volume *volume,
                                    uint64_t offset,
                                    const void *buf,
                                    size_t len,
                                    uint32_t flags,
                                    uint64_t time_ns,
                                    uint64_t *seq_out);

// As cdp_volume_write, from at most 1024 buffers of any lengths, which together are one write.
cdp_status cdp_volume_writev(struct cdp_volume *volume,
                             uint64_t offset,
                             const cdp_iovec *iov,
                             size_t iov_count,
                             uint32_t flags,
                             uint64_t *seq_out);

// As cdp_volume_write, zeroes over a range of any length. One seq.
cdp_status cdp_volume_write_zeroes(struct cdp_volume *volume,
                                   uint64_t offset,
                                   uint64_t len,
                                   uint32_t flags,
                                   uint64_t *seq_out);

// As cdp_volume_write_zeroes, dated by the host as by cdp_volume_write_at_time.
cdp_status cdp_volume_write_zeroes_at_time(struct cdp_volume *volume,
                                           uint64_t offset,
                                           uint64_t len,
                                           uint32_t flags,
                                           uint64_t time_ns,
                                           uint64_t *seq_out);

// As cdp_volume_write_zeroes, for a range that the owner of the disk has no use for any more. It reads as zeroes afterwards.
cdp_status cdp_volume_discard(struct cdp_volume *volume,
                              uint64_t offset,
                              uint64_t len,
                              uint32_t flags,
                              uint64_t *seq_out);

// As cdp_volume_discard, dated by the host as by cdp_volume_write_at_time.
cdp_status cdp_volume_discard_at_time(struct cdp_volume *volume,
                                      uint64_t offset,
                                      uint64_t len,
                                      uint32_t flags,
                                      uint64_t time_ns,
                                      uint64_t *seq_out);

// As cdp_store_flush: one journal serves all volumes.
cdp_status cdp_volume_flush(struct cdp_volume *volume, uint64_t *durable_seq_out);

// Fills the buffer from byte offset of the newest state. Multiples of 512, at most 1 GiB. CDP_ERR_CORRUPT when the bytes on the storage
// are not what was written; the content of the buffer is undefined after any failure. [any thread, several at once; waits for the storage]
cdp_status cdp_volume_read(const struct cdp_volume *volume,
                           uint64_t offset,
                           void *buf,
                           size_t len);

/* ---- queue: submit and poll -------------------------------------------------------------------------------------- */

// Fill buf from offset.
#define CDP_REQUEST_READ 1

// Write buf at offset.
#define CDP_REQUEST_WRITE 2

// Write zeroes over a range.
#define CDP_REQUEST_WRITE_ZEROES 3

// Discard a range.
#define CDP_REQUEST_DISCARD 4

// Make durable what was answered before this request was submitted.
#define CDP_REQUEST_FLUSH 5

// A row of requests to one volume.
typedef struct cdp_queue cdp_queue;

// How a queue is set up.
typedef struct cdp_queue_options {
  // sizeof(cdp_queue_options).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Requests and answers that it holds, at most 4096. 0: 128.
  uint32_t depth;
  // Threads that it starts, at most 64. 0: none, and the host calls cdp_queue_run on threads of its own.
  uint32_t threads;
  // Called from the thread that carried a request out, when there is an answer and there was none before; must not call the library or
  // unwind. For instance a write to an eventfd. NULL: nobody is told.
  void (*notify)(void *userdata);
  // Passed to notify.
  void *userdata;
  // Called exactly once, when notify is not called any more. May be NULL.
  cdp_free_userdata free_userdata;
} cdp_queue_options;

// A request.
typedef struct cdp_request {
  // sizeof(cdp_request).
  uint32_t struct_size;
  // CDP_REQUEST_*.
  uint32_t op;
  // CDP_WRITE_FUA for writes, zeroes and discards.
  uint32_t flags;
  // 0.
  uint32_t reserved;
  // Given back with the answer.
  uint64_t tag;
  // As for the call of the same name; 0 for CDP_REQUEST_FLUSH.
  uint64_t offset;
  // Its length.
  uint64_t len;
  // The buffer of a read or a write, which belongs to the library until the answer is polled; else NULL.
  void *buf;
} cdp_request;

// What a request came to.
typedef struct cdp_answer {
  // That of the request.
  uint64_t tag;
  // The seq of a write, or up to which a flush has made everything durable; else 0.
  uint64_t seq;
  // CDP_OK or why it failed.
  cdp_status status;
  // The errno of the operating system or of a callback of the host, or 0.
  int32_t os_errno;
} cdp_answer;

// Opens a queue to a volume; options may be NULL. Close it with cdp_queue_close. [any thread; waits for the start of threads]
cdp_status cdp_queue_open(cdp_volume *volume,
                          const struct cdp_queue_options *options,
                          struct cdp_queue **queue_out);

// Hands a request over; the struct is copied. CDP_ERR_BUSY when the queue is full: poll answers first. What is wrong with a range is said by
// the answer, what is wrong with the request by this call, which then has handed nothing over. Requests are begun in their order and may
// end in any. [any thread, several at once; waits for nothing]
cdp_status cdp_queue_submit(struct cdp_queue *queue,
                            const struct cdp_request *request);

// Carries out at most requests_max requests in this thread. CDP_OK: some were; CDP_END: none was waiting. [any thread, several at once; waits
// for the storage]
cdp_status cdp_queue_run(struct cdp_queue *queue,
                         size_t requests_max);

// Takes at most count answers, the oldest first; count_out says how many were stored, 0 when there are none. [any thread; waits for nothing]
cdp_status cdp_queue_poll(struct cdp_queue *queue,
                          struct cdp_answer *answers_out,
                          size_t count,
                          size_t *count_out);

// Waits until there is an answer, for timeout_ns at most. CDP_OK: there is one; CDP_END: there is none yet. [any thread]
cdp_status cdp_queue_wait(struct cdp_queue *queue,
                          uint64_t timeout_ns);

// Gives up the queue and sets the variable to NULL, which it may be already. Requests that were begun are finished, the others are dropped, and
// no answer can be polled any more. [any thread; waits for what was begun by threads of the queue]
cdp_status cdp_queue_close(struct cdp_queue **queue);

/* ---- points ------------------------------------------------------------------------------------------------------ */

// The point that a text names: latest, oldest, seq:N, time:T, bookmark:NAME, bookmark-latest, bookmark-latest:KIND, bookmark-before:T or bookmark-before:T:KIND, where T is
// like 2026-01-31T12:00:00.5Z and KIND app, fs, user or system. A time names the last state at or before it. CDP_ERR_POINT_EXPIRED when it
// cannot be opened; cdp_last_error_nearest tells the nearest points that can. [any thread; waits for the storage]
cdp_status cdp_resolve(const cdp_store *store,
                       const char *text,
                       cdp_point *point_out);

// The last state at or before a time. As cdp_resolve with time:T. [any thread; waits for the storage]
cdp_status cdp_resolve_time(const cdp_store *store, uint64_t time_ns, cdp_point *point_out);

// The newest state that is exact for every volume of the store: no gap, nothing lost, and a point where writes are coalesced.
// CDP_ERR_NOT_FOUND when there is none. [any thread; waits for the storage]
cdp_status cdp_resolve_newest_exact(const cdp_store *store,
                                    cdp_point *point_out);

/* ---- timeline ---------------------------------------------------------------------------------------------------- */

// Every write of the range is a point.
#define CDP_RANGE_WRITES 0

// The last state of each interval of interval_ns is a point.
#define CDP_RANGE_INTERVALS 1

// The state at each flush and bookmark is a point.
#define CDP_RANGE_BARRIERS 2

// Everything that can be recovered, as it stood when it was opened.
typedef struct cdp_timeline cdp_timeline;

// Ends of the timeline.
typedef struct cdp_timeline_info {
  // sizeof(cdp_timeline_info).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // The oldest point.
  cdp_point oldest;
  // The newest point.
  cdp_point newest;
  // Up to here it is known that nothing else was written.
  uint64_t covered_to_ns;
  // Ranges in which every state can be opened.
  uint64_t exact_ranges;
  // Ranges that are not exact.
  uint64_t gaps;
  // Single points that stay where others were thinned away.
  uint64_t retained;
} cdp_timeline_info;

// A range of the timeline of one volume, both ends included.
typedef struct cdp_range {
  // sizeof(cdp_range).
  uint32_t struct_size;
  // Of an exact range: how finely it was recorded, CDP_RANGE_*.
  uint32_t granularity;
  // First point of it.
  cdp_point from;
  // Last point of it.
  cdp_point to;
  // For CDP_RANGE_INTERVALS.
  uint64_t interval_ns;
  // The volume, NUL-terminated.
  char volume[136];
  // Of a gap: why, such as "overload", NUL-terminated.
  char reason[32];
} cdp_range;

// Takes down the timeline of this moment. Close it with cdp_timeline_close. [any thread; waits for the storage]
cdp_status cdp_timeline_open(const cdp_store *store,
                             struct cdp_timeline **timeline_out);

// Ends and numbers of the timeline. [any thread; waits for nothing]
cdp_status cdp_timeline_info_get(const struct cdp_timeline *timeline, struct cdp_timeline_info *info_out);

// The exact range at a place, counted from 0; CDP_END past the last. [any thread; waits for nothing]
cdp_status cdp_timeline_exact_at(const struct cdp_timeline *timeline,
                                 size_t index,
                                 struct cdp_range *range_out);

// The gap at a place, counted from 0; CDP_END past the last. [any thread; waits for nothing]
cdp_status cdp_timeline_gap_at(const struct cdp_timeline *timeline,
                               size_t index,
                               struct cdp_range *range_out);

// The single point at a place that retention has kept, counted from 0; CDP_END past the last. [any thread; waits for nothing]
cdp_status cdp_timeline_retained_at(const struct cdp_timeline *timeline,
                                    size_t index,
                                    cdp_point *point_out);

// Gives up the timeline and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_timeline_close(struct cdp_timeline **timeline);

/* ---- bookmarks --------------------------------------------------------------------------------------------------- */

// A person or a program named the moment.
#define CDP_BOOKMARK_USER 0

// A file system was consistent.
#define CDP_BOOKMARK_FS 1

// An application was consistent.
#define CDP_BOOKMARK_APP 2

// The library set it itself, for instance where a gap ends.
#define CDP_BOOKMARK_SYSTEM 3

// The bookmark must be unlocked before it can go.
#define CDP_BOOKMARK_LOCKED (1 << 0)

// To be set: refuse when a volume is not exact at this point. As information: every volume was exact.
#define CDP_BOOKMARK_EXACT (1 << 1)

// A list of bookmarks.
typedef struct cdp_bookmark_iter cdp_bookmark_iter;

// A bookmark to be set. All zero but for the size is a user bookmark of the newest state.
typedef struct cdp_bookmark_options {
  // sizeof(cdp_bookmark_options).
  uint32_t struct_size;
  // CDP_BOOKMARK_LOCKED, CDP_BOOKMARK_EXACT.
  uint32_t flags;
  // What it vouches for: CDP_BOOKMARK_USER, _FS or _APP.
  uint32_t kind;
  // 0.
  uint32_t reserved;
  // The application, free text such as "postgresql", at most 128 bytes. May be NULL.
  const char *app;
  // Free text, at most 4096 bytes. May be NULL.
  const char *comment;
  // When it may go by itself. 0: never.
  uint64_t expires_ns;
  // Its time. 0: that of its point, else now.
  uint64_t time_ns;
  // The point that it names, as cdp_resolve reads it. NULL: after everything written so far.
  const char *at;
} cdp_bookmark_options;

// Production that can be held still while a bookmark takes its place: a file system, a database, a virtual machine. Both functions are
// called from the thread that asks for the bookmark and may call the library, but for closing the store.
typedef struct cdp_quiesce {
  // sizeof(cdp_quiesce).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to both functions; borrowed for the call.
  void *userdata;
  // Holds production in the state that the bookmark vouches for: when it returns 0, every write that was acknowledged was written to its
  // volume or handed to its tap. A negative errno: no bookmark is set. Required.
  int32_t (*freeze)(void *userdata);
  // Lets production go on. Called once after each call of freeze, also when that failed. Required.
  void (*thaw)(void *userdata);
  // How long production may be held from the return of freeze, nanoseconds. Required.
  uint64_t timeout_ns;
} cdp_quiesce;

// A bookmark.
typedef struct cdp_bookmark_info {
  // sizeof(cdp_bookmark_info).
  uint32_t struct_size;
  // CDP_BOOKMARK_LOCKED, CDP_BOOKMARK_EXACT.
  uint32_t flags;
  // What it vouches for: CDP_BOOKMARK_USER, _FS, _APP or _SYSTEM.
  uint32_t kind;
  // Volumes that were not exact when it was set.
  uint32_t inexact_volumes;
  // The state that it names, and its own time, which may be later than that of its state.
  cdp_point point;
  // When it may go by itself. 0: never.
  uint64_t expires_ns;
  // Its name, NUL-terminated.
  char name[136];
  // The application, NUL-terminated; "" when there is none.
  char app[136];
  // Free text, NUL-terminated; "" when there is none.
  char comment[4104];
} cdp_bookmark_info;

// Sets a bookmark, durable when this returns with everything written before it. name is unique in the store: A-Z a-z 0-9 . _ -, 1 to
// 128 bytes. options, quiesce and info_out may be NULL. With quiesce production is frozen while the bookmark takes its place, for the time
// given at most, and is thawed whatever happens; CDP_ERR_NOT_PLACED when there was no place in time. On failure nothing is recorded.
// [any thread; waits for the storage; with quiesce it uses one thread meanwhile]
cdp_status cdp_bookmark_create(cdp_store *store,
                               const char *name,
                               const struct cdp_bookmark_options *options,
                               const struct cdp_quiesce *quiesce,
                               struct cdp_bookmark_info *info_out);

// A bookmark by name. [any thread; waits for nothing]
cdp_status cdp_bookmark_find(const cdp_store *store, const char *name, struct cdp_bookmark_info *info_out);

// Locks a bookmark (locked 1) or unlocks it (0); durable when this returns. [any thread; waits for the storage]
cdp_status cdp_bookmark_set_locked(cdp_store *store,
                                   const char *name,
                                   uint32_t locked);

// Removes a bookmark; durable when this returns. CDP_ERR_LOCKED when it must be unlocked before. [any thread; waits for the storage]
cdp_status cdp_bookmark_delete(cdp_store *store,
                               const char *name);

// Lists the bookmarks of this moment by seq, then time, then name. Close it with cdp_bookmark_iter_close. [any thread; waits for nothing]
cdp_status cdp_bookmark_iter_open(const cdp_store *store,
                                  struct cdp_bookmark_iter **iter_out);

// The next bookmark; CDP_END when there is none. [any thread; waits for nothing]
cdp_status cdp_bookmark_iter_next(struct cdp_bookmark_iter *iter, struct cdp_bookmark_info *info_out);

// Gives up the list and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_bookmark_iter_close(struct cdp_bookmark_iter **iter);

/* ---- bookmarks across stores, and by schedule -------------------------------------------------------------------- */

// Nothing is known of the other stores.
#define CDP_ACROSS_UNCONFIRMED 0

// Every store has the bookmark, durably.
#define CDP_ACROSS_COMPLETE 1

// Some stores have it, and some do not.
#define CDP_ACROSS_PARTIAL 2

// Something is frozen while a bookmark takes its place.
#define CDP_SCHEDULE_QUIESCES (1 << 0)

// Bookmarks at regular times.
typedef struct cdp_bookmark_schedule {
  // sizeof(cdp_bookmark_schedule).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // What they vouch for: CDP_BOOKMARK_USER, _FS or _APP.
  uint32_t kind;
  // 0.
  uint32_t reserved;
  // Length of a slot, nanoseconds, at least a millisecond: one bookmark in each, unless nothing was written. Required.
  uint64_t every_ns;
  // How long after they are set they may go by themselves, nanoseconds. 0: they stay.
  uint64_t keep_for_ns;
  // What their names begin with; the start of the slot follows. Required.
  const char *prefix;
  // The application. May be NULL.
  const char *app;
  // What is frozen while one takes its place, from the thread that steps or one of the runner. The struct is copied; userdata must live
  // until free_userdata is called. NULL: nothing.
  const cdp_quiesce *quiesce;
  // Called exactly once with the userdata of quiesce when that is not used any more. May be NULL.
  cdp_free_userdata free_userdata;
} cdp_bookmark_schedule;

// The schedule of a store, as it was set.
typedef struct cdp_bookmark_schedule_info {
  // sizeof(cdp_bookmark_schedule_info).
  uint32_t struct_size;
  // CDP_SCHEDULE_QUIESCES.
  uint32_t flags;
  // What the bookmarks vouch for: CDP_BOOKMARK_USER, _FS or _APP.
  uint32_t kind;
  // 0.
  uint32_t reserved;
  // Length of a slot, nanoseconds.
  uint64_t every_ns;
  // How long after they are set they may go by themselves, nanoseconds. 0: they stay.
  uint64_t keep_for_ns;
  // With CDP_SCHEDULE_QUIESCES: how long it is frozen at most, nanoseconds.
  uint64_t timeout_ns;
  // What their names begin with, NUL-terminated.
  char prefix[136];
  // The application, NUL-terminated; "" where none was given.
  char app[136];
} cdp_bookmark_schedule_info;

// Sets one bookmark in several stores: one cut through all their volumes. Success when it has its place in one store at least; statuses_out, one
// for each store, says where it is durable (CDP_OK) and why not elsewhere. id_out and points_out, one for each store, may be NULL; a store
// without the bookmark has seq UINT64_MAX. The thread's last error is then that of the last store that failed. On failure nothing is recorded anywhere, unless every store failed.
// [any thread; waits for the storages; with quiesce it uses one thread meanwhile]
cdp_status cdp_bookmark_create_across(cdp_store *const *stores,
                                      size_t count,
                                      const char *name,
                                      const cdp_bookmark_options *options,
                                      const cdp_quiesce *quiesce,
                                      cdp_status *statuses_out,
                                      cdp_point *points_out,
                                      cdp_uuid *id_out);

// The newest bookmark that all these stores have from cdp_bookmark_create_across and that is exact for every volume of them: where to go back to as one.
// points_out has count points, in the order of the stores. id_out may be NULL. CDP_ERR_NOT_FOUND when there is none.
// [any thread; waits for the storage]
cdp_status cdp_resolve_newest_common(cdp_store *const *stores,
                                     size_t count,
                                     cdp_point *points_out,
                                     cdp_uuid *id_out);

// Confirms a bookmark across stores that a crash left unconfirmed, as far as these stores can tell; state_out is CDP_ACROSS_*.
// [any thread; waits for the storages]
cdp_status cdp_bookmark_confirm_across(cdp_store *const *stores,
                                       size_t count,
                                       const char *name,
                                       cdp_uuid id,
                                       uint32_t *state_out);

// Sets bookmarks at regular times from now on; NULL: no more. The runner and cdp_store_step set them; the schedule ends with this open store.
// [any thread; waits for nothing]
cdp_status cdp_bookmark_schedule_set(cdp_store *store,
                                     const struct cdp_bookmark_schedule *schedule);

// The schedule by which bookmarks are set; CDP_END, and info_out untouched, when there is none. [any thread; waits for nothing]
cdp_status cdp_bookmark_schedule_get(const cdp_store *store,
                                     struct cdp_bookmark_schedule_info *info_out);

/* ---- snapshots --------------------------------------------------------------------------------------------------- */

// Also inside of a gap: an image in which some writes are missing and some blocks may be of a later state. It is what there is, not what
// there was.
#define CDP_SNAPSHOT_FUZZY (1 << 0)

// A list of extents.
typedef struct cdp_extent_iter cdp_extent_iter;

// A read-only image of one volume at one seq.
typedef struct cdp_snapshot cdp_snapshot;

// What is known of a snapshot.
typedef struct cdp_snapshot_info {
  // sizeof(cdp_snapshot_info).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // The seq that it shows.
  uint64_t seq;
  // Size of the volume at that point, bytes.
  uint64_t bytes;
} cdp_snapshot_info;

// Opens the volume as it was at a seq, in constant time. While it is open, retention leaves its point alone. flags: CDP_SNAPSHOT_*.
// CDP_ERR_POINT_EXPIRED when the point cannot be opened. Close it with cdp_snapshot_close. [any thread; waits for the storage when the seq is
// not durable yet]
cdp_status cdp_snapshot_open(const cdp_volume *volume,
                             uint64_t seq,
                             uint32_t flags,
                             struct cdp_snapshot **snapshot_out);

// What is known of the snapshot. [any thread; waits for nothing]
cdp_status cdp_snapshot_info_get(const struct cdp_snapshot *snapshot, struct cdp_snapshot_info *info_out);

// Fills the buffer from byte offset. Multiples of 512, at most 1 GiB. CDP_ERR_CORRUPT when the bytes on the storage are not what was written;
// the content of the buffer is undefined after any failure. [any thread, several at once; waits for the storage]
cdp_status cdp_snapshot_read(const struct cdp_snapshot *snapshot,
                             uint64_t offset,
                             void *buf,
                             size_t len);

// The first byte at or after offset that may be other than zero; CDP_END, and next_out untouched, when there is none.
// [any thread; waits for the storage]
cdp_status cdp_snapshot_next_data(const struct cdp_snapshot *snapshot,
                                  uint64_t offset,
                                  uint64_t *next_out);

// Gives up the snapshot and sets the variable to NULL, which it may be already. A job on it goes on. [any thread; waits for nothing]
cdp_status cdp_snapshot_close(struct cdp_snapshot **snapshot);

// Lists the extents that were written, zeroed or discarded after seq_from, up to and including seq_to: ascending, merged, rounded out to
// 4 KiB. Content that ended up equal may appear. Close it with cdp_extent_iter_close. [any thread; waits for the storage]
cdp_status cdp_volume_changed(const cdp_volume *volume,
                              uint64_t seq_from,
                              uint64_t seq_to,
                              struct cdp_extent_iter **iter_out);

// The next extent; CDP_END, and extent_out untouched, when there is none. [any thread; may wait for the storage]
cdp_status cdp_extent_iter_next(struct cdp_extent_iter *iter,
                                cdp_extent *extent_out);

// Gives up the list and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_extent_iter_close(struct cdp_extent_iter **iter);

/* ---- restore ----------------------------------------------------------------------------------------------------- */

// The functions of the target may be called from several threads at once, with offsets in any order, each byte once: cdp_snapshot_restore does so with threads. Steps call them from
// the thread that steps and in order all the same.
#define CDP_TARGET_SHARED (1 << 0)

// A restore under way.
typedef struct cdp_restore cdp_restore;

// Where a restore writes to. Functions return 0 or a negative errno, are called from the thread that steps or made the call, with offsets that ascend, unless CDP_TARGET_SHARED
// allows more, and must not use the same restore or unwind.
typedef struct cdp_target {
  // sizeof(cdp_target).
  uint32_t struct_size;
  // CDP_TARGET_SHARED.
  uint32_t flags;
  // Passed to every function.
  void *userdata;
  // Writes the data. offset, len and address are multiples of 4096, but for len at the end of a volume whose size is not. Required.
  int32_t (*write)(void *userdata, uint64_t offset, const void *buf, size_t len);
  // Makes a range read as zeroes. A target that is known to be empty may do nothing. Required.
  int32_t (*zero)(void *userdata, uint64_t offset, uint64_t len);
  // Makes everything durable; called once, at the end. May be NULL.
  int32_t (*finish)(void *userdata);
  // Called exactly once, when nothing is called any more, also when the start fails. May be NULL.
  cdp_free_userdata free_userdata;
} cdp_target;

// How far a restore has come.
typedef struct cdp_restore_progress {
  // sizeof(cdp_restore_progress).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Bytes of the volume that are restored.
  uint64_t bytes_done;
  // Bytes of the volume.
  uint64_t bytes_total;
  // Bytes of data among them.
  uint64_t data_bytes;
  // Bytes of zeroes among them.
  uint64_t zero_bytes;
} cdp_restore_progress;

// Begins to restore a snapshot into what the host supplies; the struct is copied. Nothing is written yet. Close it with cdp_restore_close.
// [any thread; waits for nothing]
cdp_status cdp_restore_start(const cdp_snapshot *snapshot,
                             const struct cdp_target *target,
                             struct cdp_restore **restore_out);

// Begins to restore a snapshot into a new sparse file of its size. CDP_ERR_EXISTS when there is something of that name. The file is
// complete when cdp_restore_step has returned CDP_END, and durable then; before, it is partial and the caller's to remove.
// [any thread; waits for the file system]
cdp_status cdp_restore_start_file(const cdp_snapshot *snapshot,
                                  const char *path,
                                  struct cdp_restore **restore_out);

// Has so many threads read ahead in each further step, at most 64; 0, which is how a restore begins: none. They are started by a step and end with it, so that
// steps with a budget of many MiB go well with them; memory: two pieces of 1 MiB each. The target is called from the thread that steps all the same, whatever its flags;
// threads that write too are those of cdp_snapshot_restore, which has no steps.
// [one thread at a time, CDP_ERR_BUSY for others; waits for nothing]
cdp_status cdp_restore_set_readers(struct cdp_restore *restore,
                                   uint32_t readers);

// Restores at most about budget_bytes more bytes of the volume (0: one piece), pieces of 1 MiB and holes of any length being whole. CDP_OK:
// there is more; CDP_END: everything is restored and durable. progress_out may be NULL. A step that failed may be tried again, and goes
// on where it failed. [one thread at a time, CDP_ERR_BUSY for others; waits for the storage and the target]
cdp_status cdp_restore_step(struct cdp_restore *restore,
                            uint64_t budget_bytes,
                            struct cdp_restore_progress *progress_out);

// Gives up the restore and sets the variable to NULL, which it may be already. Before CDP_END it cancels it: what was written to the target
// stays as it is, and the store is untouched. [any thread, not from the target's functions; waits for nothing]
cdp_status cdp_restore_close(struct cdp_restore **restore);

/* ---- retention --------------------------------------------------------------------------------------------------- */

// A policy as TOML.
#define CDP_POLICY_TOML 0

// A policy as JSON on one line.
#define CDP_POLICY_JSON 1

// What a run of retention would do, or did.
typedef struct cdp_retention_report {
  // sizeof(cdp_retention_report).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Points that go.
  uint64_t drop_points;
  // Points that stay.
  uint64_t keep_points;
  // Bookmarks that go.
  uint64_t expiring_bookmarks;
  // Bytes that are freed: by a preview as far as the index tells, by a run as the storage says.
  uint64_t bytes_freed;
  // From here on every state stays.
  cdp_point horizon;
} cdp_retention_report;

// Records a policy, as JSON when the text begins with a brace and as TOML otherwise (docs/retention.md); durable when this returns. Nothing is
// dropped by it. CDP_ERR_INVALID_ARGUMENT with the place and the reason when the text is no policy. [any thread; waits for the storage]
cdp_status cdp_retention_set(cdp_store *store,
                             const char *text);

// The policy in force in its canonical form, without a NUL; format is CDP_POLICY_*. len_out is the size that is needed, also with
// CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0. [any thread; waits for nothing]
cdp_status cdp_retention_get(const cdp_store *store,
                             uint32_t format,
                             char *buf,
                             size_t len,
                             size_t *len_out);

// What cdp_retention_run would do at now_ns (0: the clock of the store), for the recorded policy or for another one in text, which may be
// NULL. Changes nothing. [any thread; waits for the storage]
cdp_status cdp_retention_preview(const cdp_store *store,
                                 uint64_t now_ns,
                                 const char *text,
                                 struct cdp_retention_report *report_out);

// Brings the timeline to what the recorded policy says at now_ns (0: the clock of the store), and frees the space. What is dropped is refused
// from the moment at which the plan is durable; snapshots that are open keep their points. report_out may be NULL. What a failure left
// undone is done by a later run. [any thread; waits for the storage]
cdp_status cdp_retention_run(cdp_store *store,
                             uint64_t now_ns,
                             struct cdp_retention_report *report_out);

/* ---- retention: what stays and goes, and why --------------------------------------------------------------------- */

// The first point of the full range stays because something holds on to it, and not by a window.
#define CDP_PLAN_FULL_IS_GUEST (1 << 0)

// It is the last state that was written in its slot.
#define CDP_KEPT_SLOT_LAST 1

// All states stay there.
#define CDP_KEPT_ALL 2

// A bookmark names it that stays by the filter of its window, or where all stay.
#define CDP_KEPT_BOOKMARK 3

// A bookmark names it that its slot prefers.
#define CDP_KEPT_SLOT_BOOKMARK 4

// A locked bookmark names it.
#define CDP_KEPT_LOCKED_BOOKMARK 5

// Something reads it.
#define CDP_KEPT_PIN 6

// Its own time to expire has come.
#define CDP_DROP_EXPIRED 1

// It is older than the policy allows.
#define CDP_DROP_AGE 2

// The window neither prefers it in its slot nor lets it pass.
#define CDP_DROP_WINDOW 3

// It lies before what the space allows.
#define CDP_DROP_SPACE 4

// What retention would keep and drop, as it was planned at one moment.
typedef struct cdp_retention_plan cdp_retention_plan;

// A plan as a whole.
typedef struct cdp_retention_plan_info {
  // sizeof(cdp_retention_plan_info).
  uint32_t struct_size;
  // CDP_PLAN_FULL_IS_GUEST.
  uint32_t flags;
  // The time that it is made for.
  uint64_t now_ns;
  // From here on every point stays; before it, those of cdp_retention_plan_point_at, and no other.
  cdp_point full_from;
  // When to plan again if nothing is written and nothing is changed: before, the same is kept and dropped. UINT64_MAX: never.
  uint64_t next_due_ns;
  // Points before the full range that stay.
  uint64_t points;
  // Bookmarks that stay.
  uint64_t bookmarks_kept;
  // Bookmarks that go.
  uint64_t bookmarks_dropped;
} cdp_retention_plan_info;

// A point before the full range that stays.
typedef struct cdp_retention_point {
  // sizeof(cdp_retention_point).
  uint32_t struct_size;
  // Why it stays: CDP_KEPT_*.
  uint32_t why;
  // The point.
  cdp_point point;
  // The time of the write that followed it: the point stands for all times before that.
  uint64_t until_ns;
  // The window by whose rule it stays, counted from 0; UINT32_MAX: it is older than the last one, or there are none.
  uint32_t window;
  // 0.
  uint32_t reserved;
  // The ages of that window, such as "24h-48h", NUL-terminated.
  char window_name[64];
  // The bookmark, or what reads it, NUL-terminated; "" for the others.
  char name[136];
} cdp_retention_point;

// A bookmark that goes.
typedef struct cdp_retention_drop {
  // sizeof(cdp_retention_drop).
  uint32_t struct_size;
  // Why it goes: CDP_DROP_*.
  uint32_t why;
  // For CDP_DROP_WINDOW: the window, counted from 0; else UINT32_MAX.
  uint32_t window;
  // 0.
  uint32_t reserved;
  // Its name, NUL-terminated.
  char name[136];
} cdp_retention_drop;

// Plans what cdp_retention_run would keep and drop at now_ns (0: the clock of the store), for the recorded policy or for another one in text, which may be NULL.
// Changes nothing, and nothing that happens later changes the plan. Memory: about 100 bytes a point before the full range. cdp_retention_preview says how many bytes
// that would free. Close it with cdp_retention_plan_close. [any thread; waits for the storage]
cdp_status cdp_retention_plan_open(const cdp_store *store,
                                   uint64_t now_ns,
                                   const char *text,
                                   struct cdp_retention_plan **plan_out);

// The plan as a whole. [any thread; waits for nothing]
cdp_status cdp_retention_plan_info_get(const struct cdp_retention_plan *plan,
                                       struct cdp_retention_plan_info *info_out);

// The point before the full range that stays at a place, counted from 0 and ascending by seq; CDP_END, and point_out untouched, past the last.
// [any thread; waits for nothing]
cdp_status cdp_retention_plan_point_at(const struct cdp_retention_plan *plan,
                                       size_t index,
                                       struct cdp_retention_point *point_out);

// The bookmark that goes at a place, counted from 0 and ascending by name; CDP_END, and drop_out untouched, past the last. Every other bookmark stays.
// [any thread; waits for nothing]
cdp_status cdp_retention_plan_drop_at(const struct cdp_retention_plan *plan,
                                      size_t index,
                                      struct cdp_retention_drop *drop_out);

// Gives up the plan and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_retention_plan_close(struct cdp_retention_plan **plan);

/* ---- retention: how large a history will be ---------------------------------------------------------------------- */

// `time_ns,volume,offset,length[,op]` without a header; op is write (where it is missing), zero, discard, flush or bookmark:NAME.
#define CDP_TRACE_CSV 0

// That of MSR Cambridge: Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime; reads are skipped.
#define CDP_TRACE_MSR 1

// The expected size of a history, by tier.
typedef struct cdp_history_size cdp_history_size;

// The share of a tier.
typedef struct cdp_tier_size {
  // sizeof(cdp_tier_size).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Points in it; each write of the full range is one.
  uint64_t points;
  // Versions of blocks of 4096 bytes that are needed for it and for no younger tier.
  uint64_t versions;
  // Bytes of these blocks.
  uint64_t data_bytes;
  // Bytes of their entries in the index.
  uint64_t index_bytes;
  // Bytes that were written in the span of the tier, whole blocks; 0 for the newest state.
  uint64_t written_bytes;
  // "newest", "all" for the full range, or the ages of a window behind it, such as "24h-48h", NUL-terminated.
  char name[64];
} cdp_tier_size;

// Expects the size of a history under a policy (TOML or JSON, as for cdp_retention_set) once it has its full age, for bytes_per_day written at random over
// working_set_bytes, at least 4096. CDP_ERR_INVALID_ARGUMENT for a policy that is not valid or has no bound by age. Needs no store. Close it with
// cdp_history_size_close. [any thread; waits for nothing]
cdp_status cdp_size_of_rate(const char *policy,
                            uint64_t bytes_per_day,
                            uint64_t working_set_bytes,
                            struct cdp_history_size **size_out);

// The same exactly, for the history that a trace leaves as of its last line; format is CDP_TRACE_*. The file is read twice, and must be a regular one.
// Memory: 8 bytes a write, and about 50 a block that was written. CDP_ERR_INVALID_ARGUMENT with the number of the line where it is no trace.
// [any thread; waits for the file system]
cdp_status cdp_size_of_trace(const char *policy,
                             const char *path,
                             uint32_t format,
                             struct cdp_history_size **size_out);

// All of it, blocks and index, in bytes. [any thread; waits for nothing]
cdp_status cdp_history_size_bytes(const struct cdp_history_size *size, uint64_t *bytes_out);

// The tier at a place, counted from 0: the newest state, the full range, then window by window. CDP_END, and tier_out untouched, past the last.
// [any thread; waits for nothing]
cdp_status cdp_history_size_tier_at(const struct cdp_history_size *size,
                                    size_t index,
                                    struct cdp_tier_size *tier_out);

// What the figures rest on, and what they say that is not obvious: the sentence for people at a place, counted from 0, without a NUL. CDP_END, and everything
// untouched, past the last. len_out is the size that is needed, also with CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0.
// [any thread; waits for nothing]
cdp_status cdp_history_size_assumption_at(const struct cdp_history_size *size,
                                          size_t index,
                                          char *buf,
                                          size_t len,
                                          size_t *len_out);

// Gives up the size and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_history_size_close(struct cdp_history_size **size);

/* ---- source: the production disk --------------------------------------------------------------------------------- */

// What changes when a source is changed by anybody. A host that has a generation number of its own may put it into any of the fields.
typedef struct cdp_source_stamp {
  // The file system, or the device.
  uint64_t device;
  // The file in it.
  uint64_t inode;
  // Its size, bytes.
  uint64_t bytes;
  // When its content was last modified, nanoseconds.
  uint64_t modified_ns;
  // When anything of it was last changed, nanoseconds.
  uint64_t changed_ns;
} cdp_source_stamp;

// How the library reads a production disk. Functions return 0 or a negative errno, may be called from any thread, and must not call the
// library or unwind.
typedef struct cdp_source {
  // sizeof(cdp_source).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to every function.
  void *userdata;
  // Fills the buffer with what a read by the application would give: at least every write that was completed when the call was made.
  // Multiples of 512, never past the end of the volume. Required.
  int32_t (*read)(void *userdata, uint64_t offset, void *buf, size_t len);
  // Makes every write durable that was completed when the call was made. NULL: it cannot, and then there is no activity log.
  int32_t (*sync)(void *userdata);
  // The first byte at or after offset that may be other than zero; CDP_END when there is none. NULL: everything is read.
  int32_t (*next_data)(void *userdata, uint64_t offset, uint64_t *next_out);
  // What changes when the source is changed; CDP_END when there is no such thing now. NULL: there is none.
  int32_t (*stamp)(void *userdata, struct cdp_source_stamp *stamp_out);
  // Called exactly once, when nothing is called any more, also when the call that took the struct fails. May be NULL.
  cdp_free_userdata free_userdata;
  // For a disk that lies across a link which is slower than the disk: the digests of the ranges, taken at the far end, in their order, exactly digests_count of them.
  // unit is CDP_DIGEST_*; the far end answers with cdp_digests_of. They are those of what a read would give: at least every write that was completed when the call was made,
  // so that none may be kept from an earlier answer. The ranges are of whole blocks but for the end of the volume, ascend, do not overlap, and cover at most
  // CDP_DIGEST_REQUEST_BYTES_MAX bytes. What is not filled counts as different. Who knows the key can prepare blocks that differ and have one digest: give it only to
  // an end that may write the disk anyway, over a link that nobody else reads. Resync by digests or by map, and a verification with CDP_VERIFY_DIGESTS, then move
  // digests, and the bytes of what differs. NULL: what is compared is read. Given together with read_ranges, or neither.
  int32_t (*digests)(void *userdata,
                     uint64_t key,
                     uint32_t unit,
                     const cdp_extent *ranges,
                     size_t ranges_count,
                     uint64_t *digests_out,
                     size_t digests_count);
  // Reads such ranges, one behind the other, in one exchange, into a buffer that is as long as they are together: as read does for each. Given together with digests, or
  // neither.
  int32_t (*read_ranges)(void *userdata, const cdp_extent *ranges, size_t ranges_count, void *buf, size_t len);
} cdp_source;

/* ---- source: the far end of a link ------------------------------------------------------------------------------- */

// A digest for each region of CDP_DIGEST_REGION_BYTES, aligned on the disk, that a range touches; less at the ends of a range and of the disk.
#define CDP_DIGEST_REGION 0

// A digest for each block of 4096 bytes; less at the end of the disk.
#define CDP_DIGEST_BLOCK 1

// Bytes of a region.
#define CDP_DIGEST_REGION_BYTES (1 << 20)

// Most bytes of the disk that one request covers.
#define CDP_DIGEST_REQUEST_BYTES_MAX (8 << 20)

// Most digests of one answer, and most ranges of a request.
#define CDP_DIGESTS_MAX 2048

// Holds what came over a link against what a request may be, for a disk of source_bytes bytes, before anything is read for it: also that for cdp_source.read_ranges, whose
// ranges keep the same rules. digests_count_out, which may be NULL, is how many digests the answer has, at most CDP_DIGESTS_MAX. CDP_ERR_INVALID_ARGUMENT, with the reason in
// the message, for ranges or a unit that no request has. [any thread; waits for nothing]
cdp_status cdp_digests_check(uint64_t source_bytes,
                             uint32_t unit,
                             const cdp_extent *ranges,
                             size_t ranges_count,
                             size_t *digests_count_out);

// Answers cdp_source.digests at the far end of a link, where the disk is: reads the ranges, 1 MiB at a time and without the holes that next_data tells of, and stores their digests.
// source is the disk there, of source_bytes bytes, and is good for this call; a struct without free_userdata is good for any number of calls. digests_out has room for
// digests_room of them. What came over the link may be handed in as it is: CDP_ERR_INVALID_ARGUMENT as of cdp_digests_check, and CDP_ERR_BUFFER_TOO_SMALL, when
// digests_count_out says how many are needed; nothing was read then. CDP_ERR_IO with the errno of reading, when digests_out is untouched too. No store is needed at this end.
// [any thread; waits for the source]
cdp_status cdp_digests_of(const cdp_source *source,
                          uint64_t source_bytes,
                          uint64_t key,
                          uint32_t unit,
                          const cdp_extent *ranges,
                          size_t ranges_count,
                          uint64_t *digests_out,
                          size_t digests_room,
                          size_t *digests_count_out);

/* ---- tap: capture beside a production disk ----------------------------------------------------------------------- */

// Nothing is known beyond what the store recorded: the source was not changed since the last tap ended, or since the store went down. Where it has a
// stamp that says otherwise, everything is compared.
#define CDP_SOURCE_AS_RECORDED 0

// The source and the newest state of the volume are equal, for instance both are new. Not believed after an unclean end.
#define CDP_SOURCE_EQUAL 1

// Besides what the store recorded, the ranges given may differ and nothing else.
#define CDP_SOURCE_DIFFERS 2

// Anything may differ: the source was changed while no tap watched it.
#define CDP_SOURCE_UNKNOWN 3

// Every write is begun with cdp_tap_begin, and an unclean end costs a comparison of what was being written and not of the whole source.
#define CDP_TAP_ACTIVITY_LOG (1 << 0)

// The write was captured whole and becomes a write of the timeline.
#define CDP_CAPTURED_WHOLE 1

// The blocks of the write were marked; they are copied from the source later, and the timeline has a gap until then.
#define CDP_CAPTURED_MARKED 2

// The host says so, for instance because a write failed.
#define CDP_GAP_HOST 6

// Writes overlapped in flight, so their order on the source is unknown.
#define CDP_GAP_OVERLAP 5

// Writes are captured whole.
#define CDP_TAP_MODE_DATA 0

// Writes only mark their blocks; what differs is copied from the source meanwhile.
#define CDP_TAP_MODE_BITMAP 1

// Writes are captured whole while the last dirty blocks are copied.
#define CDP_TAP_MODE_RESYNC 2

// A tap on a volume.
typedef struct cdp_tap cdp_tap;

// How a tap is set up. All zero but for the size is the default of everything.
typedef struct cdp_tap_options {
  // sizeof(cdp_tap_options).
  uint32_t struct_size;
  // CDP_TAP_*.
  uint32_t flags;
  // What is known of the source, CDP_SOURCE_*.
  uint32_t source_state;
  // Frames of 1 MiB of the pool, which all taps of a store share; the first tap decides. 0: 64.
  uint32_t pool_frames;
  // Bytes that a bit of the dirty map stands for, a power of two from 4 KiB to 1 MiB. 0: by the size of the volume.
  uint64_t granularity;
  // For CDP_SOURCE_DIFFERS: ranges that may differ, in any order. Borrowed for the call.
  const cdp_extent *ranges;
  // How many.
  size_t ranges_count;
  // With an activity log: most regions that are active at a time. 0: 944.
  uint32_t log_regions_max;
  // 0.
  uint32_t reserved;
  // With an activity log: bytes of a region. 0: 4 MiB.
  uint64_t log_region_bytes;
} cdp_tap_options;

// Figures of a tap.
typedef struct cdp_tap_stats {
  // sizeof(cdp_tap_stats).
  uint32_t struct_size;
  // How writes are taken now, CDP_TAP_MODE_*.
  uint32_t mode;
  // The volume is captured whole and no gap is open or about to be: 1, else 0.
  uint32_t is_whole;
  // 0.
  uint32_t reserved;
  // Bytes that are known to differ from the source.
  uint64_t dirty_bytes;
  // Writes captured whole.
  uint64_t whole;
  // Writes that only marked.
  uint64_t marked;
  // Gaps opened.
  uint64_t gaps;
  // Captured bytes that wait in the pool, of all taps of the store.
  uint64_t pool_bytes;
  // Frames of 1 MiB of the pool.
  uint64_t pool_frames;
  // How many of them are free.
  uint64_t pool_frames_free;
  // Bytes captured and not durable yet, of all volumes of the store.
  uint64_t lag_bytes;
  // Age of the oldest such write, nanoseconds.
  uint64_t lag_ns;
  // Bytes that resync has compared.
  uint64_t resync_bytes_compared;
  // Bytes of data that it has taken over.
  uint64_t resync_bytes_transferred;
  // How long a resync that is under way takes at the speed that it had so far, nanoseconds. UINT64_MAX: none is, or nothing is known yet.
  uint64_t resync_left_ns;
} cdp_tap_stats;

// Begins to capture a volume (NULL: the first one) beside its source. Durable when this returns: an unclean end from now on until the tap ends
// is known to have left the store behind the source. While the two differ a gap is open on the timeline, which resync closes: that is work of
// the runner or of cdp_store_step. source is copied; options may be NULL. CDP_ERR_EXISTS when the volume has a tap.
// On failure nothing is captured. [any thread; waits for the storage, and for the source with an activity log]
cdp_status cdp_tap_open(cdp_store *store,
                        const char *volume,
                        const cdp_source *source,
                        const struct cdp_tap_options *options,
                        struct cdp_tap **tap_out);

// Ends the tap: what was captured becomes durable, and what differs from the source is recorded. The caller has stopped writing to the source,
// and the source has made its writes durable. On failure it may be called again. [any thread; CDP_ERR_BUSY from a callback; waits for the storage]
cdp_status cdp_tap_detach(struct cdp_tap *tap);

// Ends the tap as cdp_tap_detach does, gives up the handle and sets the variable to NULL, which it may be already. The handle is gone whatever
// the status; a tap whose end failed is ended by cdp_store_close. [any thread; CDP_ERR_BUSY from a callback, and nothing is closed; waits for
// the storage]
cdp_status cdp_tap_close(struct cdp_tap **tap);

// Takes one write of 512 bytes to 16 MiB that has completed on the source: call it before the write is acknowledged to the application. The
// order of calls is the order of writes. offset and len are multiples of 512; time_ns 0 is now. outcome_out, which may be NULL, is
// CDP_CAPTURED_*. It never waits, allocates or calls the storage, and it cannot fail on the store's account; when it fails the call was wrong
// and nothing was captured. The buffer is borrowed for the call. [any thread, several at once; waits for nothing]
cdp_status cdp_tap_capture(struct cdp_tap *tap,
                           uint64_t offset,
                           const void *buf,
                           size_t len,
                           uint64_t time_ns,
                           uint32_t *outcome_out);

// As cdp_tap_capture, from at most 1024 buffers, which together are one write. It allocates.
cdp_status cdp_tap_capturev(struct cdp_tap *tap,
                            uint64_t offset,
                            const cdp_iovec *iov,
                            size_t iov_count,
                            uint64_t time_ns,
                            uint32_t *outcome_out);

// As cdp_tap_capture, for zeroes that were written over a range of any length.
cdp_status cdp_tap_capture_zeroes(struct cdp_tap *tap,
                                  uint64_t offset,
                                  uint64_t len,
                                  uint64_t time_ns,
                                  uint32_t *outcome_out);

// As cdp_tap_capture, for a discard of a range of any length that reads as zeroes from then on.
cdp_status cdp_tap_capture_discard(struct cdp_tap *tap,
                                   uint64_t offset,
                                   uint64_t len,
                                   uint64_t time_ns,
                                   uint32_t *outcome_out);

// Says that a range of the source may have changed without being captured, for instance by a write that failed; reason is CDP_GAP_HOST or
// CDP_GAP_OVERLAP. It is copied from the source later, and the timeline has a gap until then. [any thread; waits for nothing]
cdp_status cdp_tap_mark(struct cdp_tap *tap,
                        uint64_t offset,
                        uint64_t len,
                        uint32_t reason);

// As cdp_tap_mark for many ranges of any alignment: what the host's own tracking of changed blocks says. With an activity log it is durable when
// this returns, and waits for the storage. On failure of the storage all is marked and may not be durable.
cdp_status cdp_tap_mark_extents(struct cdp_tap *tap,
                                const cdp_extent *extents,
                                size_t count,
                                uint32_t reason);

// Stops capturing whole: writes only mark until cdp_tap_resume. [any thread; waits for nothing]
cdp_status cdp_tap_suspend(struct cdp_tap *tap);

// Lets resync bring a suspended tap back. [any thread; waits for nothing]
cdp_status cdp_tap_resume(struct cdp_tap *tap);

// Figures of the tap. [any thread; waits for a piece of resync that is under way]
cdp_status cdp_tap_stats_get(const struct cdp_tap *tap, struct cdp_tap_stats *stats_out);

// What is known to differ from the source at this moment: ascending, merged. Close it with cdp_extent_iter_close.
// [any thread; waits for nothing]
cdp_status cdp_tap_dirty_extents(const struct cdp_tap *tap,
                                 cdp_extent_iter **iter_out);

// The dirty map as bytes for a peer, under a device and a generation that the caller names. len_out is the size that is needed, also with
// CDP_ERR_BUFFER_TOO_SMALL, when the content of the buffer is undefined; buf may be NULL with len 0. [any thread; waits for nothing]
cdp_status cdp_tap_dirty_map_get(const struct cdp_tap *tap,
                                 cdp_uuid device,
                                 uint64_t generation,
                                 void *buf,
                                 size_t len,
                                 size_t *len_out);

// Marks what a dirty map in the form of cdp_tap_dirty_map_get says may differ. CDP_ERR_MAP_REFUSED when the bytes are no map, or one of another
// device, generation or size: nothing was marked then, and everything must be taken for dirty. [any thread; waits for the storage with
// an activity log]
cdp_status cdp_tap_mark_map(struct cdp_tap *tap,
                            const void *buf,
                            size_t len,
                            cdp_uuid device,
                            uint64_t generation,
                            uint32_t reason);

/* ---- tap: writes that overlap in flight -------------------------------------------------------------------------- */

// The write has put this data on the source.
#define CDP_WRITTEN_DATA 1

// The write has put zeroes on the source.
#define CDP_WRITTEN_ZEROES 2

// The range was discarded and reads as zeroes.
#define CDP_WRITTEN_DISCARD 3

// The write failed: the range may hold anything, and is copied from the source later.
#define CDP_WRITTEN_FAILED 4

// A write between its submission to the source and its end.
typedef struct cdp_in_flight cdp_in_flight;

// To be called before a write is submitted to the source, with its range: multiples of 512, of any length. The write is handed over with
// cdp_in_flight_end when it is complete and before it is acknowledged. Writes of one range that overlap in flight are marked, because their
// order on the source is unknown. Without an activity log it does not wait; with one it returns when the log names the range, and on
// failure the write must not be submitted. [any thread, several at once]
cdp_status cdp_tap_begin(cdp_tap *tap,
                         uint64_t offset,
                         uint64_t len,
                         struct cdp_in_flight **in_flight_out);

// Hands over a write that was begun: the order of these calls is the order of writes. kind is CDP_WRITTEN_*; buf and len are the data, as
// long as the range that was begun and at most 16 MiB, for CDP_WRITTEN_DATA, and NULL and 0 otherwise. time_ns 0 is now. The handle is used up
// and the variable NULL afterwards, whatever the status; on failure the range was marked. [any thread; waits for nothing]
cdp_status cdp_in_flight_end(struct cdp_in_flight **in_flight,
                             uint32_t kind,
                             const void *buf,
                             size_t len,
                             uint64_t time_ns,
                             uint32_t *outcome_out);

// Says that a write that was begun was not submitted and will not be, and sets the variable to NULL, which it may be already.
// [any thread; waits for nothing]
cdp_status cdp_in_flight_cancel(struct cdp_in_flight **in_flight);

// Does one write to the source with the tap around it, for hosts that wait where they are until it is complete: as cdp_tap_begin, then write,
// then cdp_in_flight_end, without a handle between them, which is cheaper. kind is CDP_WRITTEN_DATA, with buf of len bytes, at most 16 MiB,
// or CDP_WRITTEN_ZEROES or CDP_WRITTEN_DISCARD, with buf NULL and a len of any size. write puts it on the source and returns 0; or CDP_END when
// nothing has changed and nothing will, and nothing is captured; or a negative errno, and the range is marked, as it is by any other answer.
// answer_out, which may be NULL, receives what it returned. Unless the status is CDP_OK it was not called, and nothing was submitted. write may
// call the library, but not close the store or the tap. [any thread, several at once; without an activity log it waits for write alone]
cdp_status cdp_tap_write_through(cdp_tap *tap,
                                 uint64_t offset,
                                 uint64_t len,
                                 uint32_t kind,
                                 const void *buf,
                                 int32_t (*write)(void *userdata),
                                 void *userdata,
                                 int32_t *answer_out,
                                 uint32_t *outcome_out);

/* ---- dirty maps by themselves ------------------------------------------------------------------------------------ */

// A dirty map.
typedef struct cdp_dirty_map cdp_dirty_map;

// A run of blocks that is being copied.
typedef struct cdp_dirty_run cdp_dirty_run;

// A dirty map as it is now.
typedef struct cdp_dirty_map_info {
  // sizeof(cdp_dirty_map_info).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Size of the volume, bytes.
  uint64_t bytes;
  // Bytes that one bit stands for.
  uint64_t granularity_bytes;
  // Bytes of the claim: of the blocks that are dirty or in a run, at most those of the volume.
  uint64_t dirty_bytes;
} cdp_dirty_map_info;

// Makes a map of a volume of this many bytes, a multiple of 512, with nothing dirty in it. One bit stands for granularity_bytes, a power of two from 4096 to
// 1048576; 0: by the size of the volume. Memory is taken as bits are set. Close it with cdp_dirty_map_close. [any thread; waits for nothing]
cdp_status cdp_dirty_map_create(uint64_t bytes,
                                uint64_t granularity_bytes,
                                struct cdp_dirty_map **map_out);

// Makes the map that the bytes of cdp_dirty_map_encode or cdp_tap_dirty_map_get hold, for a volume of this many bytes, under this device and generation.
// CDP_ERR_MAP_REFUSED when they are no map, or one of another device, generation or size: take everything for dirty. [any thread; waits for nothing]
cdp_status cdp_dirty_map_decode(const void *buf,
                                size_t len,
                                uint64_t bytes,
                                cdp_uuid device,
                                uint64_t generation,
                                struct cdp_dirty_map **map_out);

// The claim of the map as bytes for a peer, under a device and a generation that the caller names. len_out is the size that is needed, also with
// CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0. [any thread; waits for nothing]
cdp_status cdp_dirty_map_encode(const struct cdp_dirty_map *map,
                                cdp_uuid device,
                                uint64_t generation,
                                void *buf,
                                size_t len,
                                size_t *len_out);

// Makes every block dirty that the range touches; what lies past the end of the volume is ignored. Lock-free. A run that is being copied is dirty again whatever
// becomes of it. [any thread, several at once; waits for nothing]
cdp_status cdp_dirty_map_set(struct cdp_dirty_map *map,
                             uint64_t offset,
                             uint64_t len);

// Makes every block dirty. [any thread, several at once; waits for nothing]
cdp_status cdp_dirty_map_set_all(struct cdp_dirty_map *map);

// As cdp_dirty_map_set for many ranges: what the host's own tracking of changed blocks says. CDP_ERR_OUT_OF_RANGE for the first range that reaches past the end of
// the volume; those before it are dirty. [any thread, several at once; waits for nothing]
cdp_status cdp_dirty_map_set_extents(struct cdp_dirty_map *map,
                                     const cdp_extent *extents,
                                     size_t count);

// Makes everything dirty that the other map claims, which stays as it is. CDP_ERR_INVALID_ARGUMENT when they are of volumes of different sizes.
// [any thread; waits for nothing]
cdp_status cdp_dirty_map_merge(struct cdp_dirty_map *map,
                               const struct cdp_dirty_map *other);

// Makes the map of the volume after it was given another size: what is claimed stays dirty, and all that is new is. Sets that come meanwhile may be missing in it:
// hold them back, or set in both. The old map stays as it is. [any thread; waits for nothing]
cdp_status cdp_dirty_map_resized(const struct cdp_dirty_map *map,
                                 uint64_t bytes,
                                 struct cdp_dirty_map **map_out);

// Size, granularity and claim. The claim is counted: up to some milliseconds for 1 TiB in blocks of 4 KiB. [any thread; waits for nothing]
cdp_status cdp_dirty_map_info_get(const struct cdp_dirty_map *map,
                                  struct cdp_dirty_map_info *info_out);

// Stores 1 when any block that the range touches is dirty or in a run, else 0. [any thread; waits for nothing]
cdp_status cdp_dirty_map_is_dirty(const struct cdp_dirty_map *map,
                                  uint64_t offset,
                                  uint64_t len,
                                  uint32_t *dirty_out);

// The first dirty byte at or after offset; blocks that are only in a run do not count. CDP_END, and next_out untouched, when there is none.
// [any thread; waits for nothing]
cdp_status cdp_dirty_map_next(const struct cdp_dirty_map *map,
                              uint64_t offset,
                              uint64_t *next_out);

// Lists the claim: what is dirty or in a run, ascending, merged, cut at the end of the volume. Close the list with cdp_extent_iter_close.
// [any thread; waits for nothing]
cdp_status cdp_dirty_map_extents(const struct cdp_dirty_map *map,
                                 cdp_extent_iter **iter_out);

// Takes the next dirty run at or after the block of offset to copy it, at most bytes_max bytes and at least a block: extent_out is what to copy. Read it from the
// volume after this has returned, make it durable where it goes, and call cdp_dirty_run_clean: that is the only way for a block to become clean, and one that was set
// meanwhile stays dirty. Until then it is claimed as before, and nobody else is given it. CDP_END, and extent_out untouched, when nothing there is dirty that is not
// in a run already, or when there are 256 runs. [any thread; waits for nothing]
cdp_status cdp_dirty_map_begin(struct cdp_dirty_map *map,
                               uint64_t offset,
                               uint64_t bytes_max,
                               struct cdp_dirty_run **run_out,
                               cdp_extent *extent_out);

// Says that a run is durable where it goes: its blocks are clean, but for those that were set meanwhile. read, which may be NULL, is what of it was copied where that
// was not all: blocks that it covers whole are clean, and the others are dirty again. Sets the variable to NULL, which it may be already.
// [any thread; waits for nothing]
cdp_status cdp_dirty_run_clean(struct cdp_dirty_run **run,
                               const cdp_extent *read);

// Gives up a run, which is dirty again, and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_dirty_run_abandon(struct cdp_dirty_run **run);

// Gives up the map with its runs and lists, and sets the variable to NULL, which it may be already. One of a file stays as it is with the file, and its runs are
// those of the file. [any thread; waits for nothing]
cdp_status cdp_dirty_map_close(struct cdp_dirty_map **map);

/* ---- dirty maps that survive a crash ----------------------------------------------------------------------------- */

// Writes do not go through the activity log: after a crash everything is dirty.
#define CDP_MAP_WITHOUT_LOG (1 << 0)

// A new map begins with everything dirty. For cdp_map_file_create alone.
#define CDP_MAP_ALL_DIRTY (1 << 1)

// It was closed in good order, and is exact.
#define CDP_MAP_WAS_CLEAN (1 << 0)

// Everything is dirty; the text says why.
#define CDP_MAP_WAS_LOST (1 << 1)

// Where too many regions are active it is not waited for others.
#define CDP_MAP_NO_WAIT (1 << 0)

// A dirty map on an extent.
typedef struct cdp_map_file cdp_map_file;

// A write that a map knows of.
typedef struct cdp_map_write cdp_map_write;

// What a map is a map of, and how it is used.
typedef struct cdp_map_file_options {
  // sizeof(cdp_map_file_options).
  uint32_t struct_size;
  // CDP_MAP_WITHOUT_LOG, CDP_MAP_ALL_DIRTY.
  uint32_t flags;
  // Size of the volume, bytes; a multiple of 512. Required.
  uint64_t bytes;
  // Bytes that one bit stands for, a power of two from 4096 to 1048576. 0: by the size of the volume.
  uint64_t granularity_bytes;
  // What the host calls the volume.
  cdp_uuid device;
  // And its line of writes: a map of another generation is refused.
  uint64_t generation;
  // Bytes of a region of the activity log, a power of two from the granularity on. 0: 4 MiB. For cdp_map_file_create alone.
  uint64_t region_bytes;
  // Most regions that are active at a time, from 4. 0: as many as there may be.
  uint32_t regions_active_max;
  // Records of the activity log, a power of two from 2 to 1024. 0: 8. For cdp_map_file_create alone.
  uint32_t ring_records;
} cdp_map_file_options;

// What an open has found.
typedef struct cdp_map_file_opened {
  // sizeof(cdp_map_file_opened).
  uint32_t struct_size;
  // CDP_MAP_WAS_CLEAN, CDP_MAP_WAS_LOST.
  uint32_t flags;
  // Regions that the activity log made dirty.
  uint64_t regions_replayed;
  // Pages that were not whole and made all of their blocks dirty.
  uint64_t pages_damaged;
  // Why everything is dirty, for people, NUL-terminated; "" where it is not.
  char text[256];
} cdp_map_file_opened;

// What is known of a map on an extent.
typedef struct cdp_map_file_info {
  // sizeof(cdp_map_file_info).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // What the host calls the volume.
  cdp_uuid device;
  // Its generation now.
  uint64_t generation;
  // Most bytes of one write of cdp_map_file_begin: cut longer ones.
  uint64_t write_bytes_max;
} cdp_map_file_info;

// Makes a map on a new extent of a storage that no store and no mirror set uses, and opens it; durable when this returns. The storage is borrowed for the call, and
// the map goes on using what it stands for. CDP_ERR_EXISTS when there is an extent of that number. Close it with cdp_map_file_close.
// [any thread; waits for the storage]
cdp_status cdp_map_file_create(cdp_storage *storage,
                               uint64_t extent,
                               const struct cdp_map_file_options *options,
                               struct cdp_map_file **file_out);

// Opens a map; from now on an end other than cdp_map_file_close is known to be a crash. opened_out, which may be NULL, is what was found. CDP_ERR_NOT_FOUND when there
// is no such extent; CDP_ERR_MAP_REFUSED when it holds no map, or one of another device, generation, size or granularity: take everything for dirty, remove the
// extent and make a new one. One map at a time is open on an extent: the host sees to that. [any thread; waits for the storage]
cdp_status cdp_map_file_open(cdp_storage *storage,
                             uint64_t extent,
                             const struct cdp_map_file_options *options,
                             struct cdp_map_file_opened *opened_out,
                             struct cdp_map_file **file_out);

// Writes the map of the volume at its new size, a multiple of 512, as a new map on a new extent of a storage, and opens that: what is new is dirty; durable when this
// returns. The old file is closed, with its maps and runs, and its variable is NULL; it stays on its extent as it was, for an open after a crash, until the host has switched
// to the new one and removes it. CDP_ERR_INVALID_ARGUMENT while a write is in flight, CDP_ERR_EXISTS when there is an extent of that number; after any error the old file is
// still in use. [any thread; waits for the storage]
cdp_status cdp_map_file_resize_into(struct cdp_map_file **file,
                                    cdp_storage *storage,
                                    uint64_t extent,
                                    uint64_t new_bytes,
                                    struct cdp_map_file **file_out);

// The map itself, for the functions of cdp_dirty_map; closed with the file. What is set in it directly, and runs that become clean, are durable with the next
// cdp_map_file_checkpoint. [any thread; waits for nothing]
cdp_status cdp_map_file_map(const struct cdp_map_file *file,
                            cdp_dirty_map **map_out);

// What is known of the file. [any thread; waits for a change of the file that is under way]
cdp_status cdp_map_file_info_get(const struct cdp_map_file *file, struct cdp_map_file_info *info_out);

// To be called before a write of the range is submitted to the volume: when it returns, a crash from now on claims the range. Costs next to nothing where the
// region is active; else one write to the storage, which all that wait share, and a wait for other writes to end where too many regions are active: with CDP_MAP_NO_WAIT in
// flags it is CDP_END then, and write_out is NULL. End it with cdp_map_write_end. On failure the write must not be submitted.
// CDP_ERR_INVALID_ARGUMENT for more than write_bytes_max. [any thread, several at once; waits for the storage and for writes under way]
cdp_status cdp_map_file_begin(struct cdp_map_file *file,
                              uint64_t offset,
                              uint64_t len,
                              uint32_t flags,
                              struct cdp_map_write **write_out);

// Says that a write has ended: durable_everywhere is 1 when it succeeded and is durable at the consumer too, and 0 when not, and its blocks become dirty then. Sets the
// variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_map_write_end(struct cdp_map_write **write,
                             uint32_t durable_everywhere);

// Makes the map as it is durable. On failure no write is let through any more: close the file and make a new one. [any thread; waits for the storage]
cdp_status cdp_map_file_checkpoint(struct cdp_map_file *file);

// Makes everything dirty, durably; on failure it is so in memory. [any thread; waits for the storage]
cdp_status cdp_map_file_mark_all(struct cdp_map_file *file);

// Gives the map another generation, which must be higher; durable when this returns. [any thread; waits for the storage]
cdp_status cdp_map_file_rotate(struct cdp_map_file *file,
                               uint64_t generation);

// Turns the activity log on (1) or off (0). After a crash everything is dirty, from the time when it was off to the next checkpoint with the log on.
// [any thread; waits for the storage]
cdp_status cdp_map_file_set_log(struct cdp_map_file *file,
                                uint32_t on);

// Closes the map exactly as it is, with its runs and writes under way, which are dirty in it, and sets the variable to NULL, which it may be already. The file is
// closed whatever the status; after an error the next open takes it for a crash. [any thread; waits for the storage]
cdp_status cdp_map_file_close(struct cdp_map_file **file);

/* ---- resync, check ----------------------------------------------------------------------------------------------- */

// The source, and the digests in the index of the store.
#define CDP_RESYNC_DIGEST 0

// Every byte of both sides.
#define CDP_RESYNC_FULL 1

// What the recorded map of differences names.
#define CDP_RESYNC_MAP 2

// Nothing, as long as source and volume are as they were when they were last known to be equal.
#define CDP_RESYNC_QUICK 3

// The caller vouches that the source was not changed since the last run.
#define CDP_RESYNC_SOURCE_UNCHANGED (1 << 0)

// The run went on where another had ended.
#define CDP_RESYNC_RESUMED (1 << 0)

// It looked at more than was asked for, because what was asked for was not possible.
#define CDP_RESYNC_FELL_BACK (1 << 1)

// Every payload is read too.
#define CDP_CHECK_DEEP (1 << 0)

// How a resync goes. All zero but for the size is the default of everything.
typedef struct cdp_resync_options {
  // sizeof(cdp_resync_options).
  uint32_t struct_size;
  // CDP_RESYNC_SOURCE_UNCHANGED.
  uint32_t flags;
  // What it looks at: CDP_RESYNC_DIGEST, _FULL, _MAP or _QUICK.
  uint32_t mode;
  // Threads that read the source ahead, for the time of the call or of the job, that of a tap too. 0: none is started.
  uint32_t readers;
  // Bytes of the source that are compared in a second at most. 0: no bound.
  uint64_t bytes_per_second_max;
  // When it happens, nanoseconds, for a host that dates its writes by another clock than that of the store. 0: now. Not for a tap.
  uint64_t time_ns;
  // Most work that a crash makes a later run repeat, nanoseconds of time. 0: a second. Not for a tap.
  uint64_t checkpoint_ns;
} cdp_resync_options;

// Told how far a long call is. The function is called from the thread of the call, may call the library, and ends the call early by a
// value other than 0.
typedef struct cdp_watch {
  // sizeof(cdp_watch).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to the function; borrowed for the call.
  void *userdata;
  // Required.
  int32_t (*progress)(void *userdata, uint64_t done, uint64_t total);
} cdp_watch;

// What a resync has done.
typedef struct cdp_resync_report {
  // sizeof(cdp_resync_report).
  uint32_t struct_size;
  // CDP_RESYNC_RESUMED, CDP_RESYNC_FELL_BACK.
  uint32_t flags;
  // What it has looked at: CDP_RESYNC_DIGEST, _FULL, _MAP or _QUICK.
  uint32_t mode;
  // 0.
  uint32_t reserved;
  // Bytes that are still to be compared: 0 unless it was ended early.
  uint64_t bytes_left;
  // Bytes compared, those in holes of the source included.
  uint64_t bytes_compared;
  // Bytes that differed and were taken over, in whole blocks.
  uint64_t bytes_different;
  // What of them was data and not zeroes.
  uint64_t bytes_transferred;
  // Bytes read from the source; where that lies across a link and answers digests, what came over as bytes of blocks.
  uint64_t source_bytes_read;
  // Bytes of payload read from the store.
  uint64_t store_bytes_read;
  // Bytes of digests that a source across a link has answered, 8 each.
  uint64_t digest_bytes;
  // Regions of it, and parts of regions, whose digests were equal.
  uint64_t regions_equal;
  // Those whose digests differed.
  uint64_t regions_different;
  // What of bytes_different the store could not read.
  uint64_t bytes_damaged;
  // Times that it had to begin again with what was under way: the source failed, or the store had no room.
  uint64_t setbacks;
} cdp_resync_report;

// Makes the newest state of a volume (NULL: the first one) equal to a source that nobody captures from and nobody changes meanwhile. What differs
// is appended; points before stay. Durable when this returns. options, watch and report_out may be NULL. Ended early by the watch it
// succeeds with bytes_left, and a later call goes on there; so it does after a failure. [any thread; waits for the storage and the source]
cdp_status cdp_resync(cdp_store *store,
                      const char *volume,
                      const cdp_source *source,
                      const struct cdp_resync_options *options,
                      const struct cdp_watch *watch,
                      struct cdp_resync_report *report_out);

// As cdp_resync for a volume with a tap, whose own source is read, while writes go on. The thread does the work of the runner meanwhile.
// [any thread; waits for the storage and the source]
cdp_status cdp_tap_resync(cdp_tap *tap,
                          const struct cdp_resync_options *options,
                          const struct cdp_watch *watch,
                          struct cdp_resync_report *report_out);

// Verifies every structure of the store. Damage is no failure: damage_count_out is the number of places, and the first of them is described in
// buf, a text for people of at most len bytes with its NUL, which may be NULL with 0. The watch is told structures, not bytes, cannot end the
// check, and may be NULL. [any thread; waits for the storage]
cdp_status cdp_store_check(const cdp_store *store,
                           uint32_t flags,
                           const struct cdp_watch *watch,
                           uint64_t *damage_count_out,
                           char *buf,
                           size_t len);

/* ---- resync: schedule -------------------------------------------------------------------------------------------- */

// A part of each day, in UTC; past midnight when to_ns is not later than from_ns.
typedef struct cdp_hours {
  // Begin, nanoseconds after midnight; less than a day.
  uint64_t from_ns;
  // End, nanoseconds after midnight; at most a day, and another moment than from_ns.
  uint64_t to_ns;
} cdp_hours;

// When the taps of a store resync by themselves. All zero but for the size: at once, all of them, as fast as they can.
typedef struct cdp_resync_schedule {
  // sizeof(cdp_resync_schedule).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // How long a volume differs from its source before its resync begins, nanoseconds.
  uint64_t delay_ns;
  // The parts of the day in which they go on; outside of them writes are marked. NULL with 0: all day. Borrowed for the call.
  const struct cdp_hours *hours;
  // How many.
  size_t hours_count;
  // Names of volumes that come first, the most urgent one first. NULL with 0: none. Borrowed for the call.
  const char *const *first;
  // How many.
  size_t first_count;
  // Bytes of all sources together that are compared in a second at most. 0: no bound.
  uint64_t bytes_per_second_max;
  // Latency of production that resync may not drive it beyond, nanoseconds: the host says what it measures (cdp_store_note_latency). 0: none.
  uint64_t latency_max_ns;
  // How many volumes resync at the same time. 0: all.
  uint32_t volumes_at_once;
  // 0.
  uint32_t reserved;
} cdp_resync_schedule;

// Sets when the taps of the store resync by themselves, which first and how fast, from now on; NULL is the default of everything. It belongs to the open
// store and is not recorded. Resyncs that are asked for (cdp_tap_resync, cdp_tap_resync_start) go by their own options. CDP_ERR_INVALID_ARGUMENT for what
// cannot be meant, and the schedule stays as it was. [any thread; waits for nothing]
cdp_status cdp_store_set_resync_schedule(cdp_store *store,
                                         const struct cdp_resync_schedule *schedule);

// Says how long an I/O of production took just now, nanoseconds, for a schedule with latency_max_ns. A sample now and then is enough, and makes resync
// slower or faster. [any thread; waits for nothing]
cdp_status cdp_store_note_latency(cdp_store *store,
                                  uint64_t latency_ns);

/* ---- jobs: long work in steps ------------------------------------------------------------------------------------ */

// The job was cancelled, by cdp_job_cancel.
#define CDP_JOB_CANCELLED (1 << 0)

// Everything is done.
#define CDP_JOB_DONE (1 << 1)

// Long work under way.
typedef struct cdp_job cdp_job;

// How far a job is.
typedef struct cdp_job_progress {
  // sizeof(cdp_job_progress).
  uint32_t struct_size;
  // CDP_JOB_*.
  uint32_t flags;
  // Bytes that are done: of the volume, of the store for a check and a scrub, freed for retention.
  uint64_t bytes_done;
  // Bytes in all; it may change while the job runs. 0: not known.
  uint64_t bytes_total;
  // Nothing can be done for so long, nanoseconds, for a bound on its speed or until something comes to rest: step it again then. 0: at once.
  uint64_t wait_ns;
  // How long what is left takes at the speed that the job has had, nanoseconds. UINT64_MAX: not known.
  uint64_t left_ns;
} cdp_job_progress;

// Does about budget_bytes more of the work (0: one piece, of about 1 MiB or one structure of the store), in this thread and in no other. CDP_OK: there is
// more, after progress_out->wait_ns; CDP_END: everything is done, or the job was cancelled, and a further step does nothing. A step never sleeps. One that
// fails ends the job, and what was done stays: begin another one, which goes on there; only a restore may be stepped again. progress_out may be NULL.
// [one thread at a time, CDP_ERR_BUSY for others; waits for the storage and the source]
cdp_status cdp_job_step(struct cdp_job *job,
                        uint64_t budget_bytes,
                        struct cdp_job_progress *progress_out);

// How far the job is, without doing anything. [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_progress_get(const struct cdp_job *job,
                                struct cdp_job_progress *progress_out);

// Holds a check or a scrub to so many bytes of the store a second from now on; 0, as each begins: no bound. What it has to wait is progress_out->wait_ns of a step. What a scrub
// has mended is read once more without the bound. CDP_ERR_INVALID_ARGUMENT for a job of another kind: those have their bound in their options, where they have one.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_limit_rate(struct cdp_job *job,
                              uint64_t bytes_per_second_max);

// Says that the job is to end: a step that is under way ends behind the piece that it is at, and it, or the next one, returns CDP_END with
// CDP_JOB_CANCELLED. What was done until then stays and is made durable, and its result can be asked for.
// [any thread, also while another one steps; waits for nothing]
cdp_status cdp_job_cancel(struct cdp_job *job);

// Gives up the job and sets the variable to NULL, which it may be already. Before CDP_END it cancels it, at any moment; a step that is under way on
// another thread ends behind the piece that it is at. The store is consistent, and what was done stays. [any thread; waits for the storage]
cdp_status cdp_job_close(struct cdp_job **job);

/* ---- jobs: what there is ----------------------------------------------------------------------------------------- */

// As cdp_resync, as a job, whose result is cdp_job_resync_report. From this call until the job has ended the volume takes no inline writes and no tap.
// Threads of options.readers live as long as the job. [any thread; waits for the storage and the source]
cdp_status cdp_resync_start(cdp_store *store,
                            const char *volume,
                            const cdp_source *source,
                            const cdp_resync_options *options,
                            cdp_job **job_out);

// As cdp_tap_resync, as a job, whose result is cdp_job_resync_report. Closed early, it leaves what is left to the tap. Threads of options.readers live as long as the job.
// [any thread; waits for the storage and the source]
cdp_status cdp_tap_resync_start(cdp_tap *tap,
                                const cdp_resync_options *options,
                                cdp_job **job_out);

// What a resync has done so far. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_resync_report(const cdp_job *job, cdp_resync_report *report_out);

// As cdp_store_check, as a job that counts bytes of structures, whose result is cdp_job_damage_at. What the store lets go of meanwhile is no damage. cdp_job_limit_rate bounds its
// speed.
// [any thread; waits for nothing]
cdp_status cdp_check_start(const cdp_store *store,
                           uint32_t flags,
                           cdp_job **job_out);

// Describes the damage at a place, counted from 0, that a check has found so far, or that a scrub has left: a text for people of at most len bytes with its
// NUL, which may be NULL with 0. CDP_END past the last. Places are in their final order when the job is done.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_damage_at(const cdp_job *job,
                             size_t index,
                             char *buf,
                             size_t len);

// As cdp_retention_run, as a job, whose result is cdp_job_retention_report. Its first step makes the plan durable; between steps nothing is held, and what is
// not done is done by a later run. Its bytes are those that are freed, and how many there will be is not known.
// [any thread; waits for nothing]
cdp_status cdp_retention_start(cdp_store *store,
                               uint64_t now_ns,
                               cdp_job **job_out);

// What a run of retention does; CDP_END before its first step, when it has not been planned yet. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_retention_report(const cdp_job *job,
                                    cdp_retention_report *report_out);

// Turns a restore into a job, for hosts that step all long work alike; it goes on where it stands. The restore's handle is taken over and its variable set to
// NULL; on failure it stays as it is. [any thread; waits for nothing]
cdp_status cdp_restore_into_job(cdp_restore **restore,
                                cdp_job **job_out);

/* ---- verify ------------------------------------------------------------------------------------------------------ */

// The store takes over what differs or cannot be read.
#define CDP_VERIFY_REPAIR (1 << 0)

// Keyed 64-bit digests are compared instead of bytes, where the source has cdp_source.digests: each side reads its own bytes, and digests cross the link, and what is mended.
#define CDP_VERIFY_DIGESTS (1 << 1)

// Most bytes of a cursor.
#define CDP_VERIFY_CURSOR_BYTES_MAX (8 << 20)

// It was compared to the end.
#define CDP_VERIFY_COMPLETE (1 << 0)

// There were differences, and the store was made equal to the source everywhere.
#define CDP_VERIFY_REPAIRED (1 << 1)

// How a verification goes. All zero but for the size is the default of everything.
typedef struct cdp_verify_options {
  // sizeof(cdp_verify_options).
  uint32_t struct_size;
  // CDP_VERIFY_REPAIR, CDP_VERIFY_DIGESTS.
  uint32_t flags;
  // Threads that read the source ahead, until the call or the job has ended. 0: none is started.
  uint32_t readers;
  // 0.
  uint32_t reserved;
  // Bytes of the source that are compared in a second at most. 0: no bound.
  uint64_t bytes_per_second_max;
  // Where an earlier verification of the same volume had come to, as cdp_job_verify_cursor gave it: what that has compared is not compared again. Borrowed for
  // the call. NULL: from the beginning.
  const void *cursor;
  // Its length, bytes.
  size_t cursor_len;
} cdp_verify_options;

// What a verification has found.
typedef struct cdp_verify_report {
  // sizeof(cdp_verify_report).
  uint32_t struct_size;
  // CDP_VERIFY_COMPLETE, CDP_VERIFY_REPAIRED.
  uint32_t flags;
  // Bytes that this one compared, those in holes of the source included.
  uint64_t bytes_compared;
  // Bytes that differ, in whole blocks but for the last.
  uint64_t bytes_different;
  // What of them the store could not read.
  uint64_t bytes_damaged;
  // Bytes that changed all the time: nothing is known of them.
  uint64_t bytes_unsettled;
  // How many ranges of differences there are; it may be more than were stored.
  uint64_t extents_count;
  // Bytes read from the source; what was compared by digests is not among them.
  uint64_t source_bytes_read;
  // Bytes of payload read from the store.
  uint64_t store_bytes_read;
  // Bytes of digests that a source across a link has answered, 8 each.
  uint64_t digest_bytes;
  // Regions of it, and parts of regions, whose digests were equal when they were first looked at.
  uint64_t regions_equal;
  // Those whose digests differed then.
  uint64_t regions_different;
} cdp_verify_report;

// Compares the newest state of a volume (NULL: the first one) with a source byte by byte, or with CDP_VERIFY_DIGESTS by digests, while writes to both may go on through a tap. The source
// is never written. Differences and damage are no failures: they are in the report. The first extents_count of the ranges that differ are
// stored in extents_out, which may be NULL with 0. options and watch may be NULL; ended early by the watch, nothing is repaired.
// CDP_ERR_INVALID_ARGUMENT for a cursor of another store or volume. [any thread; waits for the storage and the source]
cdp_status cdp_verify(cdp_store *store,
                      const char *volume,
                      const cdp_source *source,
                      const struct cdp_verify_options *options,
                      const cdp_watch *watch,
                      cdp_extent *extents_out,
                      size_t extents_count,
                      struct cdp_verify_report *report_out);

// As cdp_verify, as a job, whose result is cdp_job_verify_report and cdp_job_verify_extents, and whose place cdp_job_verify_cursor tells. Closed or cancelled
// before everything was compared it repairs nothing. [any thread; waits for the storage and the source]
cdp_status cdp_verify_start(cdp_store *store,
                            const char *volume,
                            const cdp_source *source,
                            const struct cdp_verify_options *options,
                            cdp_job **job_out);

// What a verification has found so far. Before everything was compared, what is different is so at first sight.
// CDP_ERR_INVALID_ARGUMENT for a job of another kind. [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_verify_report(const cdp_job *job,
                                 struct cdp_verify_report *report_out);

// Lists the ranges that a verification has found to differ so far: ascending, merged. Close the list with cdp_extent_iter_close.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_verify_extents(const cdp_job *job,
                                  cdp_extent_iter **iter_out);

// Where a verification has come to, as bytes for the host to keep where a crash leaves them whole: cdp_verify_options.cursor of a later one goes on there, also in
// another process. Ask now and then, between steps, and once more before a job that is not done is closed, also after it was cancelled. len_out is the size that is needed, at most
// CDP_VERIFY_CURSOR_BYTES_MAX, also with CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0. CDP_END, and everything untouched, when
// there is none: everything was compared, the job has failed or repairs what differs, or more than 65536 ranges differ, and what was kept before stays good.
// CDP_ERR_INVALID_ARGUMENT for a job of another kind. [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_verify_cursor(const cdp_job *job,
                                 void *buf,
                                 size_t len,
                                 size_t *len_out);

/* ---- seeding: export and import of sets -------------------------------------------------------------------------- */

// Only what was written after since_seq is exported.
#define CDP_EXPORT_SINCE (1 << 0)

// Data is stored as it is, and not packed where that gains.
#define CDP_EXPORT_PLAIN (1 << 1)

// Everything is there; without it a later export of the same states to the same place goes on.
#define CDP_EXPORT_COMPLETE (1 << 0)

// Some of the data files, or all, were there from an earlier run.
#define CDP_EXPORT_RESUMED (1 << 1)

// The set goes on from an older state, and is taken over only by a volume in that state.
#define CDP_SEED_SINCE (1 << 0)

// It went on where another run had ended, or the volume was in that state already.
#define CDP_IMPORT_RESUMED (1 << 0)

// A seed set that is open for reading.
typedef struct cdp_seed cdp_seed;

// How a volume is exported. All zero but for the size is the default of everything.
typedef struct cdp_export_options {
  // sizeof(cdp_export_options).
  uint32_t struct_size;
  // CDP_EXPORT_SINCE, CDP_EXPORT_PLAIN.
  uint32_t flags;
  // With CDP_EXPORT_SINCE: the state that the set goes on from; else 0.
  uint64_t since_seq;
  // Most bytes of a data file, 4 MiB to 512 GiB. 0: 256 MiB.
  uint64_t file_bytes_max;
} cdp_export_options;

// What an export has written, earlier runs included.
typedef struct cdp_export_report {
  // sizeof(cdp_export_report).
  uint32_t struct_size;
  // CDP_EXPORT_COMPLETE, CDP_EXPORT_RESUMED.
  uint32_t flags;
  // Identity of the set.
  cdp_uuid set;
  // Bytes of data read from the store by this run.
  uint64_t data_bytes;
  // Data files that are whole.
  uint64_t files;
  // Bytes of them.
  uint64_t stored_bytes;
} cdp_export_report;

// What a set holds.
typedef struct cdp_seed_info {
  // sizeof(cdp_seed_info).
  uint32_t struct_size;
  // CDP_SEED_SINCE.
  uint32_t flags;
  // Identity of the set.
  cdp_uuid set;
  // Identity of the store that it comes from.
  cdp_uuid store;
  // The state that it leads to, as the store that it comes from counts.
  cdp_point at;
  // Size of the volume then, bytes.
  uint64_t bytes;
  // With CDP_SEED_SINCE: the state that it goes on from; else zero.
  cdp_point since;
  // Size of the volume then, bytes.
  uint64_t since_bytes;
  // Bytes of its data files.
  uint64_t stored_bytes;
  // Name of the volume, NUL-terminated.
  char volume[136];
} cdp_seed_info;

// How a set is taken over. All zero but for the size is the default of everything.
typedef struct cdp_import_options {
  // sizeof(cdp_import_options).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Bytes of the volume that are compared in a second at most. 0: no bound.
  uint64_t bytes_per_second_max;
  // When it happens, for a host that dates its writes itself. 0: now.
  uint64_t time_ns;
} cdp_import_options;

// What an import of a set has done.
typedef struct cdp_import_report {
  // sizeof(cdp_import_report).
  uint32_t struct_size;
  // CDP_IMPORT_RESUMED.
  uint32_t flags;
  // Bytes that are still to be taken over: 0 unless it was ended early.
  uint64_t bytes_left;
  // Bytes compared.
  uint64_t bytes_compared;
  // Bytes that differed and were taken over, in whole blocks.
  uint64_t bytes_different;
  // What of them was data and not zeroes.
  uint64_t bytes_transferred;
  // The volume, NUL-terminated.
  char volume[136];
} cdp_import_report;

// Writes the volume as it was at a seq as a seed set: its data without zeroes, or what was written since another state. It goes to a directory that is new
// or empty, or to a storage of its own with path NULL; or to where an earlier run for the same states was ended, which then goes on behind its last whole
// data file. The set is whole and durable with CDP_EXPORT_COMPLETE. The store may be open for reading only. options and watch may be NULL; ended early by the
// watch it succeeds without CDP_EXPORT_COMPLETE. CDP_ERR_POINT_EXPIRED for a state that cannot be opened; CDP_ERR_EXISTS when something else is there,
// CDP_ERR_BUSY while another export writes there. [any thread; waits for the storage of both]
cdp_status cdp_volume_export(const cdp_volume *volume,
                             uint64_t seq,
                             const char *path,
                             cdp_storage *storage,
                             const struct cdp_export_options *options,
                             const cdp_watch *watch,
                             struct cdp_export_report *report_out);

// As cdp_volume_export, as a job, whose result is cdp_job_export_report. [any thread; waits for the storage of both]
cdp_status cdp_export_start(const cdp_volume *volume,
                            uint64_t seq,
                            const char *path,
                            cdp_storage *storage,
                            const struct cdp_export_options *options,
                            cdp_job **job_out);

// What an export has written so far. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_export_report(const cdp_job *job, struct cdp_export_report *report_out);

// Opens a set that is complete, in a directory or with path NULL in a storage, for reading. CDP_ERR_NOT_FOUND when there is none, or its
// export was not finished; CDP_ERR_CORRUPT when what describes it is damaged. Close it with cdp_seed_close. [any thread; waits for the storage]
cdp_status cdp_seed_open(const char *path,
                         cdp_storage *storage,
                         struct cdp_seed **seed_out);

// What the set holds. [any thread; waits for nothing]
cdp_status cdp_seed_info_get(const struct cdp_seed *seed, struct cdp_seed_info *info_out);

// Reads every byte of the set and compares it with its digests: CDP_ERR_CORRUPT for the first that is not what was written. watch may be NULL; ended early
// by it the call succeeds, and only what was read until then is known to be right. [any thread; waits for the storage]
cdp_status cdp_seed_verify(const struct cdp_seed *seed,
                           const cdp_watch *watch);

// Gives up the set and sets the variable to NULL, which it may be already; an import of it goes on. [any thread; waits for nothing]
cdp_status cdp_seed_close(struct cdp_seed **seed);

// Makes a volume equal to the state that the set leads to. volume is its name here; NULL: the name in the set. A whole set becomes a new volume, or one of the
// same size that holds nothing but zeroes; one with CDP_SEED_SINCE is taken by a volume that an import has brought to just that state and that was not written
// since. A gap is open until everything is there; durable when this returns. options, watch and report_out may be NULL; ended early by the watch it succeeds
// with bytes_left, and a later call for the same set goes on there. CDP_ERR_SEED_REFUSED when the set does not fit, and nothing was changed;
// CDP_ERR_CORRUPT when bytes of the set are not what was written: what came before stays. [any thread; waits for the storage of both]
cdp_status cdp_seed_import(cdp_store *store,
                           const struct cdp_seed *seed,
                           const char *volume,
                           const struct cdp_import_options *options,
                           const cdp_watch *watch,
                           struct cdp_import_report *report_out);

// As cdp_seed_import, as a job, whose result is cdp_job_import_report. The set may be closed meanwhile. From this call until the job has ended the volume takes
// no inline writes and no tap. [any thread; waits for the storage of both]
cdp_status cdp_seed_import_start(cdp_store *store,
                                 const struct cdp_seed *seed,
                                 const char *volume,
                                 const struct cdp_import_options *options,
                                 cdp_job **job_out);

// What an import of a set has done so far. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_import_report(const cdp_job *job, struct cdp_import_report *report_out);

/* ---- import ------------------------------------------------------------------------------------------------------ */

// Adds a volume of this many bytes that begins with the content of a source, and opens it. The import is one seq, dated time_ns (0: now); zeroes
// and what the source says holds no data are not stored. Nobody changes the source meanwhile. Durable when this returns. watch may be NULL;
// ended early by it, the call fails with CDP_ERR_IO and the errno ECANCELED. On failure there is no such volume.
// [any thread; waits for the storage and the source]
cdp_status cdp_volume_import(cdp_store *store,
                             const char *name,
                             uint64_t bytes,
                             const cdp_source *source,
                             uint64_t time_ns,
                             const cdp_watch *watch,
                             cdp_volume **volume_out);

// Makes a new store, as cdp_store_create does, whose first volume begins with the content of a source, as cdp_volume_import has it: durable when this returns. The
// import is seq 1. Close it with cdp_store_close. On failure nothing is open; what was begun in the directory or storage is no store and may be removed.
// [any thread; waits for the storage and the source]
cdp_status cdp_store_create_with_import(const char *path,
                                        const cdp_create_options *options,
                                        const cdp_source *source,
                                        uint64_t time_ns,
                                        const cdp_watch *watch,
                                        cdp_store **store_out);

/* ---- restore: at once -------------------------------------------------------------------------------------------- */

// How a restore at once goes. All zero but for the size is the default of everything.
typedef struct cdp_restore_options {
  // sizeof(cdp_restore_options).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Threads that are started for the time of the call, at most 64. Each reads and writes, into a file and into a target with CDP_TARGET_SHARED; into another target they
  // read ahead, and the calling thread writes. Memory: two pieces of 1 MiB each. 0: none, the calling thread does everything.
  uint32_t threads;
  // 0.
  uint32_t reserved;
} cdp_restore_options;

// Restores a snapshot into what the host supplies, and returns when everything is restored and durable: as cdp_restore_start with its steps. With options.threads and
// CDP_TARGET_SHARED the threads write what they read, each byte once and in no order. options, watch and progress_out may be NULL. Ended early by the watch, which is called from
// the calling thread alone, it fails with CDP_ERR_IO and the errno ECANCELED. After a failure the target is incomplete, and it cannot be said what of it is there: begin anew;
// cdp_target.finish was not called. What the target lends is handed back by the end of the call. [any thread; waits for the storage and the target]
cdp_status cdp_snapshot_restore(const cdp_snapshot *snapshot,
                                const cdp_target *target,
                                const struct cdp_restore_options *options,
                                const cdp_watch *watch,
                                cdp_restore_progress *progress_out);

// Restores a snapshot into a new sparse file of its size, which is complete and durable when this returns; options.threads write it beside each other. CDP_ERR_EXISTS when there is
// something of that name. options, watch and progress_out may be NULL. Ended early by the watch it fails with CDP_ERR_IO and the errno ECANCELED. After a failure of the work the file is
// partial and the caller's to remove. [any thread; waits for the storage and the file system]
cdp_status cdp_snapshot_restore_file(const cdp_snapshot *snapshot,
                                     const char *path,
                                     const struct cdp_restore_options *options,
                                     const cdp_watch *watch,
                                     cdp_restore_progress *progress_out);

/* ---- mirror sets ------------------------------------------------------------------------------------------------- */

// There is no activity log: after a crash all copies are compared as a whole.
#define CDP_MIRROR_WITHOUT_LOG (1 << 0)

// A thread for each copy writes to it, from its first change until the set is closed: a write takes as long as the copies that the policy asks for, and not as
// long as all of them one after the other. Without CDP_ACK_ALL a write that was acknowledged and not flushed may be gone when the process is killed.
#define CDP_MIRROR_THREADS (1 << 1)

// A write is acknowledged when one copy holds it.
#define CDP_ACK_ONE 0

// A write is acknowledged when more than half of all copies of the set hold it.
#define CDP_ACK_QUORUM 1

// A write is acknowledged when all copies of the set hold it.
#define CDP_ACK_ALL 2

// The copies are equal.
#define CDP_DECISION_NOTHING 0

// Only the blocks that the map names differ.
#define CDP_DECISION_BY_MAP 1

// Anything may differ: all of it is compared.
#define CDP_DECISION_BY_COMPARISON 2

// Each holds something that the other does not: somebody must say which one is right.
#define CDP_DECISION_SPLIT_BRAIN 3

// They are not copies of the same volume, or cannot be.
#define CDP_DECISION_UNRELATED 4

// A mirror set that is open.
typedef struct cdp_mirror cdp_mirror;

// How the copies of a set are found when it is opened.
typedef struct cdp_copy_opener {
  // sizeof(cdp_copy_opener).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Passed to the function; borrowed for the call.
  void *userdata;
  // Stores a copy for the locator that the set was given, made by a cdp_copy_* function in this very callback; the library closes that handle.
  // 0, or a negative errno for a copy that is missing. It is called from the thread of the call and may call cdp_copy_* alone. Required.
  int32_t (*open)(void *userdata, uint32_t number, const char *locator, cdp_copy **copy_out);
} cdp_copy_opener;

// How a mirror set is used. All zero but for the size is the default of everything.
typedef struct cdp_mirror_options {
  // sizeof(cdp_mirror_options).
  uint32_t struct_size;
  // CDP_MIRROR_*.
  uint32_t flags;
  // CDP_DIRECTORY_*, for a path.
  uint32_t directory_flags;
  // Most regions of the activity log that are active at a time, from 4. 0: as many as there may be.
  uint32_t regions_active_max;
  // Where the metadata lives instead of a path, which is NULL then. Borrowed for the call; the set goes on using what it stands for.
  cdp_storage *storage;
  // How copies are found. NULL: locators are paths of files and devices. Not for cdp_mirror_create.
  const struct cdp_copy_opener *opener;
  // Where lines for people go: what happens to the set and its copies. NULL: nowhere. The struct is copied. It is called with locks of the set held.
  const cdp_log_sink *log;
  // With CDP_MIRROR_THREADS: bytes of writes that wait for a slow copy at most; what it misses beyond is marked in its map. 0: 16 MiB.
  uint64_t behind_bytes_max;
  // With CDP_MIRROR_THREADS: how long a flush waits for slow copies that the policy can do without, nanoseconds. 0: 250 ms.
  uint64_t patience_ns;
} cdp_mirror_options;

// What a new mirror set begins with.
typedef struct cdp_mirror_create_options {
  // sizeof(cdp_mirror_create_options).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Size of the volume, bytes; a multiple of 512. Required.
  uint64_t bytes;
  // When a write is acknowledged: CDP_ACK_*.
  uint32_t ack;
  // Bytes that one bit of a map stands for, a power of two from 4096 to 1048576. 0: 4096.
  uint32_t granularity_bytes;
  // Bytes of a region of the activity log, a power of two from the granularity on. 0: 4 MiB.
  uint64_t region_bytes;
  // How it is used. NULL: the default of everything.
  const struct cdp_mirror_options *open;
} cdp_mirror_create_options;

// A copy that joins a set.
typedef struct cdp_new_copy {
  // Where the host finds it, at most 4096 bytes: given back when the set is opened. Its path, for a file that is to be found without an opener.
  const char *locator;
  // The copy; borrowed for the call, the set goes on using what it stands for. NULL: the locator is the path of a file or device.
  cdp_copy *copy;
} cdp_new_copy;

// What the handshake says of two copies.
typedef struct cdp_handshake {
  // sizeof(cdp_handshake).
  uint32_t struct_size;
  // CDP_DECISION_*.
  uint32_t decision;
  // Number of the first copy.
  uint32_t first;
  // Number of the second copy.
  uint32_t second;
  // Number of the copy that is read, for CDP_DECISION_BY_MAP and _BY_COMPARISON.
  uint32_t from;
  // Number of the copy that is written, for those.
  uint32_t to;
  // Short name of the rule, stable.
  char rule[64];
  // The rule in words.
  char reason[256];
} cdp_handshake;

// Makes a mirror set of 1 to 8 copies and opens it. Its metadata go into a new or empty directory, or into options.open.storage, and must be kept
// with it; the copies hold nothing but the volume. The first copy is the source and the others are dirty, unless all are known to be
// zeroes: cdp_mirror_repair_start makes them equal. CDP_ERR_EXISTS when there is a set already or a copy is given twice, CDP_ERR_MIRROR_REFUSED for a
// copy that is too small. [any thread; waits for the storage and the copies]
cdp_status cdp_mirror_create(const char *path,
                             const struct cdp_mirror_create_options *options,
                             const struct cdp_new_copy *copies,
                             size_t copies_count,
                             struct cdp_mirror **mirror_out);

// Opens a mirror set: finds its copies, decides which is the source, and takes up what a crash has left. A copy that cannot be found is offline.
// When no copy can be the source the set opens all the same and refuses reads and writes: cdp_mirror_status_open says why,
// cdp_mirror_resolve decides. CDP_ERR_BUSY while another has it open. options may be NULL. [any thread; waits for the storage and the copies]
cdp_status cdp_mirror_open(const char *path,
                           const struct cdp_mirror_options *options,
                           struct cdp_mirror **mirror_out);

// Ends the use of a set in good order and sets the variable to NULL, which it may be already: everything is durable, and the next open compares
// nothing. Repairs and verifications of it are closed with it. The set is closed whatever the status; after an error the next open takes it
// for a crash. [any thread; CDP_ERR_BUSY from a callback, and nothing is closed; waits for the copies and for calls that are under way]
cdp_status cdp_mirror_close(struct cdp_mirror **mirror);

// Size of the volume. [any thread; waits for a resize that is under way]
cdp_status cdp_mirror_size(const struct cdp_mirror *mirror, uint64_t *bytes_out);

// Fills the buffer from byte offset, from a copy that holds the range. Multiples of 512. A copy that cannot be read is mended from another one;
// the content of the buffer is undefined after a failure. [any thread, several at once; waits for the copies]
cdp_status cdp_mirror_read(const struct cdp_mirror *mirror,
                           uint64_t offset,
                           void *buf,
                           size_t len);

// Writes to all copies that are online, one after the other, and marks what the others miss. Multiples of 512. CDP_OK: as many copies hold it as
// the policy asks for; durable with cdp_mirror_flush. CDP_ERR_TOO_FEW_COPIES: before, nothing was written; after copies failed, the
// range may hold the data or what was there. CDP_ERR_IO when the last copy that lacks nothing failed.
// [any thread, several at once; waits for the copies and for writes that overlap]
cdp_status cdp_mirror_write(struct cdp_mirror *mirror,
                            uint64_t offset,
                            const void *buf,
                            size_t len);

// As cdp_mirror_write, zeroes over a range of any length.
cdp_status cdp_mirror_write_zeroes(struct cdp_mirror *mirror, uint64_t offset, uint64_t len);

// As cdp_mirror_write_zeroes, for a range that the owner of the disk has no use for any more. It reads as zeroes afterwards, from every copy.
cdp_status cdp_mirror_discard(struct cdp_mirror *mirror,
                              uint64_t offset,
                              uint64_t len);

// Makes everything durable that was acknowledged before, on all copies that are online. [any thread, several at once; waits for the copies]
cdp_status cdp_mirror_flush(struct cdp_mirror *mirror);

// Rewrites a range of a copy that is known to be damaged there from another copy that holds it, whatever the copy reads; offset and len are multiples of 512, and
// whole blocks of 4096 are rewritten. What the map of the copy names anyway is left to a repair. CDP_ERR_NOT_FOUND; CDP_ERR_MIRROR_REFUSED when no other copy holds
// it, or the copy could not be written and is offline. [any thread, several at once; waits for the copies and for writes that overlap]
cdp_status cdp_mirror_repair_range(struct cdp_mirror *mirror,
                                   uint32_t number,
                                   uint64_t offset,
                                   uint64_t len);

// Takes a copy out of service: from now on it misses writes, and its map says which. CDP_ERR_NOT_FOUND; CDP_ERR_MIRROR_REFUSED for the last copy
// that lacks nothing. [any thread; waits for the copies and the storage]
cdp_status cdp_mirror_offline(struct cdp_mirror *mirror,
                              uint32_t number);

// Brings a copy back that was away, if the handshake with the source allows it. It takes writes from now on, and a repair gives it what it
// lacks. copy is where it is now, borrowed for the call; NULL: where it was. handshake_out, which may be NULL, is what the handshake said, with the
// source as first. CDP_ERR_MIRROR_REFUSED when it is missing, too small, unrelated or a split brain; CDP_ERR_EXISTS when it is a copy of the
// set already. [any thread; waits for the copies and the storage]
cdp_status cdp_mirror_online(struct cdp_mirror *mirror,
                             uint32_t number,
                             cdp_copy *copy,
                             struct cdp_handshake *handshake_out);

// Adds a copy; number_out, which may be NULL, is its number. Everything is dirty on it until it is repaired, unless it and the source are known to
// be zeroes. CDP_ERR_EXISTS for a copy that the set has, CDP_ERR_MIRROR_REFUSED for one that is too small. [any thread; waits for the copies
// and the storage]
cdp_status cdp_mirror_add(struct cdp_mirror *mirror,
                          const struct cdp_new_copy *copy,
                          uint32_t *number_out);

// Takes a copy out of the set for good. Its content stays as it is, its number is not used again. CDP_ERR_NOT_FOUND; CDP_ERR_MIRROR_REFUSED for the
// last copy that lacks nothing. [any thread; waits for the copies and the storage]
cdp_status cdp_mirror_remove(struct cdp_mirror *mirror,
                             uint32_t number);

// Gives the volume, and every copy, another size. When it fails while copies grow, the set goes on at the old size. CDP_ERR_MIRROR_REFUSED while a
// copy is missing. [any thread; waits for calls that are under way, the copies and the storage]
cdp_status cdp_mirror_resize(struct cdp_mirror *mirror,
                             uint64_t bytes);

// Decides that a copy is right: every other one is behind it and all dirty. The only way out of a split brain; a repair then makes the others equal.
// [any thread; waits for the copies and the storage]
cdp_status cdp_mirror_resolve(struct cdp_mirror *mirror,
                              uint32_t winner);

/* ---- mirror sets: as a source ------------------------------------------------------------------------------------ */

// A source that reads a mirror set, from whatever copy holds a range, for cdp_resync, cdp_verify, cdp_tap_open, their jobs and every other call that takes a
// cdp_source of a volume that is no larger than the set. The struct is good for one such call, which takes over what it stands for; a further one needs another
// struct. Reads and writes of the set go on meanwhile. When the set is closed, reads of the source fail. What is not used ends with the set.
// [any thread; waits for nothing]
cdp_status cdp_mirror_source(const cdp_mirror *mirror,
                             cdp_source *source_out);

/* ---- mirror sets: status ----------------------------------------------------------------------------------------- */

// The set was closed in good order; never so while it is open.
#define CDP_MIRROR_CLEAN (1 << 0)

// There is a copy that the others follow.
#define CDP_MIRROR_HAS_SOURCE (1 << 1)

// It takes writes and lacks nothing.
#define CDP_COPY_CLEAN 1

// It takes writes; its map names blocks that it lacks or that must be compared.
#define CDP_COPY_DIRTY 2

// It takes no writes.
#define CDP_COPY_OFFLINE 3

// It cannot be found.
#define CDP_COPY_MISSING 4

// What it holds cannot be brought together with the others, until cdp_mirror_resolve says who is right.
#define CDP_COPY_REFUSED 5

// How a mirror set stood at one moment.
typedef struct cdp_mirror_status cdp_mirror_status;

// A mirror set as a whole.
typedef struct cdp_mirror_info {
  // sizeof(cdp_mirror_info).
  uint32_t struct_size;
  // CDP_MIRROR_CLEAN, CDP_MIRROR_HAS_SOURCE.
  uint32_t flags;
  // Size of the volume, bytes.
  uint64_t bytes;
  // When a write is acknowledged: CDP_ACK_*.
  uint32_t ack;
  // Number of the copy that the others follow, with CDP_MIRROR_HAS_SOURCE.
  uint32_t source;
  // Copies.
  uint32_t copies;
  // Pairs of copies with a handshake.
  uint32_t pairs;
} cdp_mirror_info;

// One copy.
typedef struct cdp_copy_info {
  // sizeof(cdp_copy_info).
  uint32_t struct_size;
  // Its number.
  uint32_t number;
  // How it stands: CDP_COPY_*.
  uint32_t standing;
  // 0.
  uint32_t flags;
  // Bytes that its map names.
  uint64_t dirty_bytes;
  // Its line of writes: the number of the generation.
  uint64_t generation;
  // And its tag, which tells two of one number apart.
  uint64_t generation_tag;
  // Why it is not online, where that is not the host's wish; else "".
  char trouble[512];
  // Where the host finds it.
  char locator[4104];
  // With CDP_MIRROR_THREADS: bytes of writes that wait for it.
  uint64_t behind_bytes;
} cdp_copy_info;

// Takes down how an open set stands. Close it with cdp_mirror_status_close. [any thread; waits for nothing]
cdp_status cdp_mirror_status_open(const cdp_mirror *mirror, struct cdp_mirror_status **status_out);

// What a set would say when it is opened, with the handshake of every pair of copies that are there: a dry run that changes nothing, also while
// another process has the set open. Metadata and copies are only read, and nothing is logged. CDP_ERR_NOT_FOUND when there is no set.
// [any thread; waits for the storage and the copies]
cdp_status cdp_mirror_examine(const char *path,
                              const cdp_mirror_options *options,
                              struct cdp_mirror_status **status_out);

// The set as a whole. [any thread; waits for nothing]
cdp_status cdp_mirror_status_info_get(const struct cdp_mirror_status *status,
                                      struct cdp_mirror_info *info_out);

// The copy at a place in the set, counted from 0; CDP_END past the last. [any thread; waits for nothing]
cdp_status cdp_mirror_status_copy_at(const struct cdp_mirror_status *status,
                                     size_t index,
                                     struct cdp_copy_info *info_out);

// The handshake of the pair at a place, counted from 0; CDP_END past the last. There are pairs in what cdp_mirror_examine gives alone.
// [any thread; waits for nothing]
cdp_status cdp_mirror_status_pair_at(const struct cdp_mirror_status *status,
                                     size_t index,
                                     cdp_handshake *handshake_out);

// Gives up the status and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
cdp_status cdp_mirror_status_close(struct cdp_mirror_status **status);

// The ranges that the map of a copy names, ascending: what it lacks, or what must be compared. CDP_ERR_NOT_FOUND. Close the list with
// cdp_extent_iter_close. [any thread; waits for nothing]
cdp_status cdp_mirror_claim(const cdp_mirror *mirror,
                            uint32_t number,
                            cdp_extent_iter **iter_out);

/* ---- mirror sets: repair and verification ------------------------------------------------------------------------ */

// Only the copy of options.copy.
#define CDP_REPAIR_ONE_COPY (1 << 0)

// Make blocks that differ, on all other copies, equal to the copy of options.right.
#define CDP_MIRROR_VERIFY_REPAIR (1 << 0)

// There are more differences than are listed.
#define CDP_MIRROR_VERIFY_TRUNCATED (1 << 0)

// There is a majority.
#define CDP_DIFFERENCE_MAJORITY (1 << 0)

// A repair under way.
typedef struct cdp_mirror_repair cdp_mirror_repair;

// A verification under way.
typedef struct cdp_mirror_verify cdp_mirror_verify;

// How a repair goes about it. All zero but for the size is the default of everything.
typedef struct cdp_mirror_repair_options {
  // sizeof(cdp_mirror_repair_options).
  uint32_t struct_size;
  // CDP_REPAIR_ONE_COPY.
  uint32_t flags;
  // Number of the copy, with CDP_REPAIR_ONE_COPY; else 0.
  uint32_t copy;
  // 0.
  uint32_t reserved;
  // Bytes of the volume that a step looks at in a second, at most: it waits. 0: no bound.
  uint64_t bytes_per_second_max;
} cdp_mirror_repair_options;

// What a repair has done so far.
typedef struct cdp_mirror_repair_progress {
  // sizeof(cdp_mirror_repair_progress).
  uint32_t struct_size;
  // Copies that lack nothing any more and did before.
  uint32_t copies_whole;
  // Bytes that the maps named and that were compared.
  uint64_t bytes_compared;
  // Bytes that differed and were written.
  uint64_t bytes_written;
  // Bytes that maps of copies that are online still name; writes go on and it may grow.
  uint64_t bytes_left;
} cdp_mirror_repair_progress;

// How a verification goes about it. All zero but for the size is the default of everything.
typedef struct cdp_mirror_verify_options {
  // sizeof(cdp_mirror_verify_options).
  uint32_t struct_size;
  // CDP_MIRROR_VERIFY_REPAIR.
  uint32_t flags;
  // Number of the copy that is right, with CDP_MIRROR_VERIFY_REPAIR; else 0.
  uint32_t right;
  // 0.
  uint32_t reserved;
  // Where to begin, bytes: next_offset of one that was closed early.
  uint64_t from_offset;
} cdp_mirror_verify_options;

// What a verification has found so far.
typedef struct cdp_mirror_verify_progress {
  // sizeof(cdp_mirror_verify_progress).
  uint32_t struct_size;
  // CDP_MIRROR_VERIFY_TRUNCATED.
  uint32_t flags;
  // Where it goes on, bytes.
  uint64_t next_offset;
  // Size of the volume, bytes.
  uint64_t bytes_total;
  // Bytes of the volume of which at least two copies were compared.
  uint64_t bytes_compared;
  // Bytes in which copies differ.
  uint64_t bytes_different;
  // Bytes that were written to make copies equal.
  uint64_t bytes_repaired;
  // Bytes that some copy could not give.
  uint64_t bytes_unreadable;
  // Ranges of differences that are listed, at most 65536.
  uint64_t differences;
} cdp_mirror_verify_progress;

// A range in which copies differ.
typedef struct cdp_difference {
  // sizeof(cdp_difference).
  uint32_t struct_size;
  // CDP_DIFFERENCE_MAJORITY.
  uint32_t flags;
  // First byte.
  uint64_t offset;
  // Length, bytes: whole blocks of 4096, but for the end of the volume.
  uint64_t len;
  // Lowest number among more than half of at least three copies that agree, with CDP_DIFFERENCE_MAJORITY: a proposal, no proof.
  uint32_t majority;
  // 0.
  uint32_t reserved;
} cdp_difference;

// Begins to give every copy that is online what it lacks; options may be NULL. Nothing is done yet. Close it with cdp_mirror_repair_close.
// [any thread; waits for nothing]
cdp_status cdp_mirror_repair_start(cdp_mirror *mirror,
                                   const struct cdp_mirror_repair_options *options,
                                   struct cdp_mirror_repair **repair_out);

// Repairs about budget_bytes more bytes of the volume (0: one piece), pieces of 1 MiB being whole. CDP_OK: there is more; CDP_END: nothing that is
// online lacks anything. Reads and writes of the set go on meanwhile. progress_out may be NULL. CDP_ERR_MIRROR_REFUSED when no copy lacks
// nothing; a step that failed may be tried again. [one thread at a time, CDP_ERR_BUSY for others; waits for the copies]
cdp_status cdp_mirror_repair_step(struct cdp_mirror_repair *repair,
                                  uint64_t budget_bytes,
                                  struct cdp_mirror_repair_progress *progress_out);

// Gives up the repair and sets the variable to NULL, which it may be already. What was repaired stays so, and the next repair goes on there.
// [any thread; waits for nothing]
cdp_status cdp_mirror_repair_close(struct cdp_mirror_repair **repair);

// Begins to compare all copies that are online, block by block; options may be NULL. Nothing is done yet. Close it with cdp_mirror_verify_close.
// [any thread; waits for nothing]
cdp_status cdp_mirror_verify_start(cdp_mirror *mirror,
                                   const struct cdp_mirror_verify_options *options,
                                   struct cdp_mirror_verify **verify_out);

// Compares at least budget_bytes more bytes of the volume (0: one piece), in pieces of 1 MiB. CDP_OK: there is more; CDP_END: everything was compared.
// Differences are no failures. Reads and writes of the set go on meanwhile. progress_out may be NULL. CDP_ERR_NOT_FOUND and CDP_ERR_MIRROR_REFUSED
// when the copy that is right is none or not online. [one thread at a time, CDP_ERR_BUSY for others; waits for the copies]
cdp_status cdp_mirror_verify_step(struct cdp_mirror_verify *verify,
                                  uint64_t budget_bytes,
                                  struct cdp_mirror_verify_progress *progress_out);

// The range of differences at a place, counted from 0 and ascending; CDP_END past the last that is known so far.
// [one thread at a time, CDP_ERR_BUSY for others; waits for nothing]
cdp_status cdp_mirror_verify_difference_at(const struct cdp_mirror_verify *verify,
                                           size_t index,
                                           struct cdp_difference *difference_out);

// Gives up the verification and sets the variable to NULL, which it may be already. What was repaired stays so. [any thread; waits for nothing]
cdp_status cdp_mirror_verify_close(struct cdp_mirror_verify **verify);

/* ---- scrub ------------------------------------------------------------------------------------------------------- */

// It came to its end.
#define CDP_SCRUB_COMPLETE (1 << 0)

// What still has the content of a volume: a source of the host, or a mirror set. One of the two is given and the other is NULL.
typedef struct cdp_scrub_source {
  // The volume that it is the content of; NULL: the first one.
  const char *volume;
  // A source of the host; the struct is copied. It is only read, and may be written meanwhile.
  const cdp_source *source;
  // A mirror set: whatever copy holds a range is read. It stays the caller's, and in use until the scrub has ended.
  cdp_mirror *mirror;
} cdp_scrub_source;

// What a scrub has found and done.
typedef struct cdp_scrub_report {
  // sizeof(cdp_scrub_report).
  uint32_t struct_size;
  // CDP_SCRUB_COMPLETE.
  uint32_t flags;
  // Places that were damaged when it began.
  uint64_t damage_found;
  // Places that are damaged now.
  uint64_t damage_left;
  // Versions of blocks that were written anew.
  uint64_t versions_repaired;
  // Bytes of them.
  uint64_t bytes_repaired;
  // Versions of blocks that are damaged and whose content no source has.
  uint64_t versions_lost;
  // Frames of the tail that were cut off when the store was opened.
  uint64_t tail_frames;
  // Bytes of the tail that were cut off.
  uint64_t tail_bytes;
} cdp_scrub_report;

// Verifies every structure and every payload of the store, and writes payload that is damaged anew where one of the sources still has it: what is written has
// the digest of what was there, and every point that needs it is exact again. What no source has stays damaged, and reads of it say so. Without sources
// (NULL with 0) this is a deep cdp_store_check. Structures are not repaired. Damage is no failure: it is in the report. watch may be NULL, and is told bytes
// of the store; ended early by it before the check is done, nothing is repaired. What the sources lend is handed back by the end of the call.
// [any thread; waits for the storage and the sources]
cdp_status cdp_store_scrub(cdp_store *store,
                           const struct cdp_scrub_source *sources,
                           size_t sources_count,
                           const cdp_watch *watch,
                           struct cdp_scrub_report *report_out);

// As cdp_store_scrub, as a job, whose result is cdp_job_scrub_report and cdp_job_damage_at. cdp_job_limit_rate bounds its speed. What the sources lend
// is handed back when the job is closed.
// [any thread; waits for the storage]
cdp_status cdp_scrub_start(cdp_store *store,
                           const struct cdp_scrub_source *sources,
                           size_t sources_count,
                           cdp_job **job_out);

// What a scrub has found and done so far; CDP_END before its check is done, when nothing is known yet. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
cdp_status cdp_job_scrub_report(const cdp_job *job,
                                struct cdp_scrub_report *report_out);

/* ---- events ------------------------------------------------------------------------------------------------------ */

// A gap opened on the timeline of a volume: it is captured by dirty blocks only.
#define CDP_EVENT_GAP_OPENED 1

// A gap closed: the volume is captured whole again.
#define CDP_EVENT_GAP_CLOSED 2

// Captured writes wait for the store, which cannot write.
#define CDP_EVENT_STORE_FAILED 3

// The store takes captured writes again.
#define CDP_EVENT_STORE_RECOVERED 4

// The source of a resync could not be read; it is tried again.
#define CDP_EVENT_SOURCE_FAILED 5

// The bookmark of a slot of the schedule could not be set.
#define CDP_EVENT_BOOKMARK_MISSED 6

// A producer reserved room and did not come back.
#define CDP_EVENT_PRODUCER_STALLED 7

// Background work met bytes that are not what was written.
#define CDP_EVENT_DAMAGE_MET 8

// History was thinned as the policy asks for.
#define CDP_EVENT_THINNED 9

// Retention did not go on; what it left undone is done later.
#define CDP_EVENT_RETENTION_FAILED 10

// The clock departed from the monotonic one: no history is dropped by age until cdp_store_confirm_clock.
#define CDP_EVENT_CLOCK_DEPARTED 11

// The activity log of a tap cannot be written.
#define CDP_EVENT_LOG_LOST 12

// A tap with an activity log was given a write that it had not been told of before.
#define CDP_EVENT_LOG_BYPASSED 13

// The map of what differs could not be kept or used: the whole source is compared.
#define CDP_EVENT_MAP_NOT_USED 14

// A defect of the library ended a thread of the runner: stop the runner and start it anew.
#define CDP_EVENT_RUNNER_FAILED 15

// Something that this version of the header has no name for; the text tells.
#define CDP_EVENT_OTHER 0

// An event.
typedef struct cdp_event {
  // sizeof(cdp_event).
  uint32_t struct_size;
  // CDP_EVENT_*.
  uint32_t kind;
  // When, by the clock of the store.
  uint64_t time_ns;
  // The volume, NUL-terminated; "" where it is of none.
  char volume[136];
  // The event for people, NUL-terminated.
  char text[512];
} cdp_event;

// Takes the oldest event; CDP_END, and event_out untouched, when there is none. dropped_out, which may be NULL, is the number of events that were
// lost since the last call because nobody took them: the row holds 1024. [any thread; waits for nothing]
cdp_status cdp_event_next(cdp_store *store,
                          struct cdp_event *event_out,
                          uint64_t *dropped_out);

/* ---- figures ----------------------------------------------------------------------------------------------------- */

// The store is the disk: reads and writes go through it.
#define CDP_CAPTURE_INLINE 0

// A tap captures writes whole.
#define CDP_CAPTURE_DATA 1

// A tap marks dirty blocks, and resync copies them.
#define CDP_CAPTURE_BITMAP 2

// A tap captures writes whole while the last dirty blocks are copied.
#define CDP_CAPTURE_RESYNC 3

// Figures of a store.
typedef struct cdp_store_stats {
  // sizeof(cdp_store_stats).
  uint32_t struct_size;
  // 0.
  uint32_t flags;
  // Bytes that the store takes up on its storage.
  uint64_t stored_bytes;
  // Bytes that were written to its volumes over its life.
  uint64_t source_bytes;
  // Bytes written to the storage on their behalf.
  uint64_t written_bytes;
  // Segments.
  uint64_t segments;
  // Index runs.
  uint64_t runs;
  // Versions of blocks in the index.
  uint64_t versions;
  // Points that can be opened.
  uint64_t points;
  // From here on every state can be opened, gaps aside.
  cdp_point horizon;
  // Bytes written and not durable yet: the recovery point objective at this moment.
  uint64_t lag_bytes;
  // Age of the oldest such write, nanoseconds.
  uint64_t lag_ns;
  // Bytes that wait in the pool of the taps; there is none before the first tap.
  uint64_t pool_bytes;
  // Frames of 1 MiB of the pool.
  uint64_t pool_frames;
  // How many of them are free.
  uint64_t pool_frames_free;
  // Bytes that waited for the end of an interval since the store was opened.
  uint64_t coalesced_bytes;
  // How many were left of them.
  uint64_t coalesced_stored_bytes;
  // Bytes of the frames written since the store was opened: what the writes themselves cost, before index and sealing.
  uint64_t frame_bytes;
  // Bytes of the index runs.
  uint64_t index_bytes;
} cdp_store_stats;

// Figures of a volume since the store was opened.
typedef struct cdp_volume_stats {
  // sizeof(cdp_volume_stats).
  uint32_t struct_size;
  // How it is captured, CDP_CAPTURE_*.
  uint32_t mode;
  // Writes. Discards are not counted, zeroes are.
  uint64_t writes;
  // Bytes of them.
  uint64_t write_bytes;
  // Writes that began where the one before had ended.
  uint64_t sequential;
  // Bytes that are known to differ from the source.
  uint64_t dirty_bytes;
  // Writes by size: of 512 bytes and less, 1 KiB and less, and so on by powers of two; the last holds all that is longer.
  uint64_t sizes[16];
  // Bytes captured that are not durable yet.
  uint64_t lag_bytes;
  // Age of the oldest of them, nanoseconds.
  uint64_t lag_ns;
} cdp_volume_stats;

// Figures of the store. [any thread; waits for the storage]
cdp_status cdp_store_stats_get(const cdp_store *store, struct cdp_store_stats *stats_out);

// Figures of the volume. [any thread; waits for the storage]
cdp_status cdp_volume_stats_get(const cdp_volume *volume, struct cdp_volume_stats *stats_out);

#ifdef __cplusplus
} // extern "C"
#endif

#endif /* CDP_H */
