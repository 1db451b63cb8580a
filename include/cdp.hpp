// cdp.hpp - C++17 over cdp.h: handles that close themselves, and errors as exceptions or as values.
//
// Header only. Every type wraps one handle, can be moved and not copied, and gives the handle out by get() for all of cdp.h that is not wrapped
// here. Two ways to take an error, which may be mixed:
//   cdp::volume disk(store);                    throws cdp::error
//   if (cdp_status s = disk.try_write(...)) ... is the status, and throws nothing
// The rules of cdp.h for units, threads and callbacks hold.
#ifndef CDP_HPP
#define CDP_HPP

#include "cdp.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cdp {

// A call that failed, with what the library says of it.
class error : public std::runtime_error {
 public:
  error(cdp_status status, const char *message, std::int32_t os_errno)
      : std::runtime_error(std::string(cdp_status_name(status)) + ": " + message), status_(status), errno_(os_errno) {}
  cdp_status status() const noexcept { return status_; }
  // A positive errno with which an I/O can be completed.
  std::int32_t io_errno() const noexcept { return cdp_status_errno(status_); }
  // That of the operating system or of a callback, or 0.
  std::int32_t os_errno() const noexcept { return errno_; }

 private:
  cdp_status status_;
  std::int32_t errno_;
};

// Throws for a status below 0; passes CDP_OK and CDP_END on.
inline cdp_status check(cdp_status status) {
  if (status < 0) throw error(status, cdp_last_error_message(), cdp_last_error_errno());
  return status;
}

// A struct of cdp.h with its size set and everything else zero.
template <typename T>
T init() {
  static_assert(std::is_trivial<T>::value, "structs of C");
  T value;
  CDP_INIT(value);
  return value;
}

// A handle that closes itself. What a close says is lost in a destructor: call close() where it matters.
template <typename T, cdp_status (*Close)(T **)>
class handle {
 public:
  handle() = default;
  explicit handle(T *raw) noexcept : raw_(raw) {}
  handle(const handle &) = delete;
  handle &operator=(const handle &) = delete;
  handle(handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  handle &operator=(handle &&other) noexcept {
    if (this != &other) {
      (void)Close(&raw_);
      raw_ = std::exchange(other.raw_, nullptr);
    }
    return *this;
  }
  ~handle() { (void)Close(&raw_); }
  T *get() const noexcept { return raw_; }
  // Where a call of cdp.h stores a handle; what was there is closed.
  T **out() noexcept {
    (void)Close(&raw_);
    return &raw_;
  }
  explicit operator bool() const noexcept { return raw_ != nullptr; }
  cdp_status try_close() noexcept { return Close(&raw_); }
  void close() { check(Close(&raw_)); }

 private:
  T *raw_ = nullptr;
};

using storage = handle<cdp_storage, cdp_storage_close>;
using runner = handle<cdp_runner, cdp_runner_stop>;
using tap = handle<cdp_tap, cdp_tap_close>;
using queue = handle<cdp_queue, cdp_queue_close>;
using restore_job = handle<cdp_restore, cdp_restore_close>;
using timeline = handle<cdp_timeline, cdp_timeline_close>;
using job = handle<cdp_job, cdp_job_close>;
using seed = handle<cdp_seed, cdp_seed_close>;
using mirror_copy = handle<cdp_copy, cdp_copy_close>;
using mirror_status = handle<cdp_mirror_status, cdp_mirror_status_close>;
using mirror_repair = handle<cdp_mirror_repair, cdp_mirror_repair_close>;
using mirror_verify = handle<cdp_mirror_verify, cdp_mirror_verify_close>;

class store : public handle<cdp_store, cdp_store_close> {
 public:
  using handle::handle;
  static store create(const std::string &path, std::uint64_t bytes, const char *volume = nullptr) {
    auto options = init<cdp_create_options>();
    options.bytes = bytes;
    options.volume = volume;
    store made;
    check(cdp_store_create(path.c_str(), &options, made.out()));
    return made;
  }
  static store open(const std::string &path, std::uint32_t flags = 0) {
    auto options = init<cdp_open_options>();
    options.flags = flags;
    store opened;
    check(cdp_store_open(path.c_str(), &options, opened.out()));
    return opened;
  }
  std::uint64_t flush() {
    std::uint64_t durable = 0;
    check(cdp_store_flush(get(), &durable));
    return durable;
  }
  cdp_point resolve(const std::string &text) const {
    cdp_point point{};
    check(cdp_resolve(get(), text.c_str(), &point));
    return point;
  }
  cdp_bookmark_info bookmark(const std::string &name, const cdp_bookmark_options *options = nullptr) {
    auto info = init<cdp_bookmark_info>();
    check(cdp_bookmark_create(get(), name.c_str(), options, nullptr, &info));
    return info;
  }
  std::vector<cdp_bookmark_info> bookmarks() const {
    handle<cdp_bookmark_iter, cdp_bookmark_iter_close> iter;
    check(cdp_bookmark_iter_open(get(), iter.out()));
    std::vector<cdp_bookmark_info> found;
    auto info = init<cdp_bookmark_info>();
    while (check(cdp_bookmark_iter_next(iter.get(), &info)) == CDP_OK) found.push_back(info);
    return found;
  }
  runner start_runner(std::uint32_t flags = 0) {
    runner started;
    check(cdp_runner_start(get(), flags, started.out()));
    return started;
  }
};

class snapshot : public handle<cdp_snapshot, cdp_snapshot_close> {
 public:
  using handle::handle;
  cdp_status try_read(std::uint64_t offset, void *buf, std::size_t len) const noexcept {
    return cdp_snapshot_read(get(), offset, buf, len);
  }
  void read(std::uint64_t offset, void *buf, std::size_t len) const { check(try_read(offset, buf, len)); }
};

class volume : public handle<cdp_volume, cdp_volume_close> {
 public:
  using handle::handle;
  explicit volume(const store &of, const char *name = nullptr) { check(cdp_volume_open(of.get(), name, out())); }
  cdp_status try_write(std::uint64_t offset, const void *buf, std::size_t len, std::uint32_t flags = 0,
                       std::uint64_t *seq_out = nullptr) noexcept {
    return cdp_volume_write(get(), offset, buf, len, flags, seq_out);
  }
  std::uint64_t write(std::uint64_t offset, const void *buf, std::size_t len, std::uint32_t flags = 0) {
    std::uint64_t seq = 0;
    check(try_write(offset, buf, len, flags, &seq));
    return seq;
  }
  cdp_status try_read(std::uint64_t offset, void *buf, std::size_t len) const noexcept {
    return cdp_volume_read(get(), offset, buf, len);
  }
  void read(std::uint64_t offset, void *buf, std::size_t len) const { check(try_read(offset, buf, len)); }
  snapshot at(std::uint64_t seq, std::uint32_t flags = 0) const {
    snapshot opened;
    check(cdp_snapshot_open(get(), seq, flags, opened.out()));
    return opened;
  }
  std::vector<cdp_extent> changed(std::uint64_t seq_from, std::uint64_t seq_to) const {
    handle<cdp_extent_iter, cdp_extent_iter_close> iter;
    check(cdp_volume_changed(get(), seq_from, seq_to, iter.out()));
    std::vector<cdp_extent> found;
    cdp_extent extent{};
    while (check(cdp_extent_iter_next(iter.get(), &extent)) == CDP_OK) found.push_back(extent);
    return found;
  }
};

class mirror : public handle<cdp_mirror, cdp_mirror_close> {
 public:
  using handle::handle;
  // Over raw files that exist and are large enough.
  static mirror create(const std::string &path, std::uint64_t bytes, const std::vector<std::string> &files,
                       std::uint32_t ack = CDP_ACK_ONE) {
    auto options = init<cdp_mirror_create_options>();
    options.bytes = bytes;
    options.ack = ack;
    std::vector<cdp_new_copy> copies;
    for (const std::string &file : files) copies.push_back({file.c_str(), nullptr});
    mirror made;
    check(cdp_mirror_create(path.c_str(), &options, copies.data(), copies.size(), made.out()));
    return made;
  }
  static mirror open(const std::string &path, const cdp_mirror_options *options = nullptr) {
    mirror opened;
    check(cdp_mirror_open(path.c_str(), options, opened.out()));
    return opened;
  }
  cdp_status try_write(std::uint64_t offset, const void *buf, std::size_t len) noexcept {
    return cdp_mirror_write(get(), offset, buf, len);
  }
  void write(std::uint64_t offset, const void *buf, std::size_t len) { check(try_write(offset, buf, len)); }
  cdp_status try_read(std::uint64_t offset, void *buf, std::size_t len) const noexcept {
    return cdp_mirror_read(get(), offset, buf, len);
  }
  void read(std::uint64_t offset, void *buf, std::size_t len) const { check(try_read(offset, buf, len)); }
  void flush() { check(cdp_mirror_flush(get())); }
  void offline(std::uint32_t number) { check(cdp_mirror_offline(get(), number)); }
  void online(std::uint32_t number, cdp_copy *copy = nullptr) { check(cdp_mirror_online(get(), number, copy, nullptr)); }
  std::vector<cdp_copy_info> copies() const {
    mirror_status status;
    check(cdp_mirror_status_open(get(), status.out()));
    std::vector<cdp_copy_info> found;
    auto info = init<cdp_copy_info>();
    while (check(cdp_mirror_status_copy_at(status.get(), found.size(), &info)) == CDP_OK) found.push_back(info);
    return found;
  }
  // Gives every copy that is online what it lacks; step by step with cdp_mirror_repair_step.
  cdp_mirror_repair_progress repair() {
    mirror_repair job;
    check(cdp_mirror_repair_start(get(), nullptr, job.out()));
    auto progress = init<cdp_mirror_repair_progress>();
    while (check(cdp_mirror_repair_step(job.get(), 64 << 20, &progress)) == CDP_OK) {
    }
    return progress;
  }
};

}  // namespace cdp

#endif  // CDP_HPP
