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

#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
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
  // The variable of the handle, for calls of cdp.h that take the handle over and set the variable to NULL.
  T **variable() noexcept { return &raw_; }
  explicit operator bool() const noexcept { return raw_ != nullptr; }
  cdp_status try_close() noexcept { return Close(&raw_); }
  void close() { check(Close(&raw_)); }

 private:
  T *raw_ = nullptr;
};

// Calls that end what a handle stands for in another way than a close does, as a close.
inline cdp_status end_map_write(cdp_map_write **write) noexcept { return cdp_map_write_end(write, 0); }
inline cdp_status end_in_flight(cdp_in_flight **write) noexcept {
  return *write == nullptr ? CDP_OK : cdp_in_flight_end(write, CDP_WRITTEN_FAILED, nullptr, 0, 0, nullptr);
}

using storage = handle<cdp_storage, cdp_storage_close>;
using runner = handle<cdp_runner, cdp_runner_stop>;
using timeline = handle<cdp_timeline, cdp_timeline_close>;
using bookmark_iter = handle<cdp_bookmark_iter, cdp_bookmark_iter_close>;
using extent_iter = handle<cdp_extent_iter, cdp_extent_iter_close>;
using seed = handle<cdp_seed, cdp_seed_close>;
using mirror_copy = handle<cdp_copy, cdp_copy_close>;
using mirror_status = handle<cdp_mirror_status, cdp_mirror_status_close>;
using mirror_repair = handle<cdp_mirror_repair, cdp_mirror_repair_close>;
using mirror_verify = handle<cdp_mirror_verify, cdp_mirror_verify_close>;
// Given up without end(), what these stand for counts as failed: the write may have reached the disk, the run is dirty again.
using map_write = handle<cdp_map_write, end_map_write>;

// All that is left of a list.
inline std::vector<cdp_extent> rest_of(const extent_iter &iter) {
  std::vector<cdp_extent> found;
  cdp_extent extent{};
  while (check(cdp_extent_iter_next(iter.get(), &extent)) == CDP_OK) found.push_back(extent);
  return found;
}

// Bytes of a call that says first how many there are: call(buf, len, len_out). Nothing for CDP_END.
template <typename Call>
std::optional<std::string> bytes_of(Call call) {
  std::size_t len = 0;
  for (;;) {
    std::string bytes(len, '\0');
    const cdp_status status = call(bytes.empty() ? nullptr : &bytes[0], bytes.size(), &len);
    if (status == CDP_ERR_BUFFER_TOO_SMALL && len > bytes.size()) continue;
    if (check(status) == CDP_END) return std::nullopt;
    bytes.resize(len);
    return bytes;
  }
}

// Long work, in this thread, a step at a time or to its end.
class job : public handle<cdp_job, cdp_job_close> {
 public:
  using handle::handle;
  cdp_status try_step(std::uint64_t budget_bytes = 0, cdp_job_progress *progress = nullptr) noexcept {
    return cdp_job_step(get(), budget_bytes, progress);
  }
  // Steps to the end, and sleeps where there is nothing to do. told is called with the progress after each step. False: it was cancelled.
  template <typename Told>
  bool run(Told told, std::uint64_t budget_bytes = 16 << 20) {
    auto progress = init<cdp_job_progress>();
    while (check(try_step(budget_bytes, &progress)) == CDP_OK) {
      told(progress);
      if (progress.wait_ns > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(progress.wait_ns));
    }
    told(progress);
    return (progress.flags & CDP_JOB_DONE) != 0;
  }
  bool run() {
    return run([](const cdp_job_progress &) {});
  }
  void cancel() { check(cdp_job_cancel(get())); }
  cdp_resync_report resync_report() const { return report<cdp_resync_report>(cdp_job_resync_report); }
  cdp_verify_report verify_report() const { return report<cdp_verify_report>(cdp_job_verify_report); }
  std::vector<cdp_extent> verify_extents() const {
    extent_iter iter;
    check(cdp_job_verify_extents(get(), iter.out()));
    return rest_of(iter);
  }
  // To be kept, and given to a later verification; nothing when there is none now.
  void limit_rate(std::uint64_t bytes_per_second_max) { check(cdp_job_limit_rate(get(), bytes_per_second_max)); }
  std::optional<std::string> verify_cursor() const {
    return bytes_of([this](void *buf, std::size_t len, std::size_t *len_out) {
      return cdp_job_verify_cursor(get(), buf, len, len_out);
    });
  }

 private:
  template <typename Report>
  Report report(cdp_status (*ask)(const cdp_job *, Report *)) const {
    auto told = init<Report>();
    check(ask(get(), &told));
    return told;
  }
};

class restore_job : public handle<cdp_restore, cdp_restore_close> {
 public:
  using handle::handle;
  void set_readers(std::uint32_t readers) { check(cdp_restore_set_readers(get(), readers)); }
  cdp_status try_step(std::uint64_t budget_bytes, cdp_restore_progress *progress = nullptr) noexcept {
    return cdp_restore_step(get(), budget_bytes, progress);
  }
  cdp_restore_progress run() {
    auto progress = init<cdp_restore_progress>();
    while (check(try_step(64 << 20, &progress)) == CDP_OK) {
    }
    return progress;
  }
};

// A write that a tap was told of before it was submitted. Given up without end() or cancel() it counts as failed, and its range is marked.
class in_flight : public handle<cdp_in_flight, end_in_flight> {
 public:
  using handle::handle;
  // It was not submitted and will not be.
  void cancel() { check(cdp_in_flight_cancel(variable())); }
  std::uint32_t end(std::uint32_t kind, const void *buf, std::size_t len, std::uint64_t time_ns = 0) {
    std::uint32_t outcome = 0;
    check(cdp_in_flight_end(variable(), kind, buf, len, time_ns, &outcome));
    return outcome;
  }
};

class tap : public handle<cdp_tap, cdp_tap_close> {
 public:
  using handle::handle;
  cdp_status try_capture(std::uint64_t offset, const void *buf, std::size_t len, std::uint64_t time_ns = 0,
                         std::uint32_t *outcome_out = nullptr) noexcept {
    return cdp_tap_capture(get(), offset, buf, len, time_ns, outcome_out);
  }
  std::uint32_t capture(std::uint64_t offset, const void *buf, std::size_t len, std::uint64_t time_ns = 0) {
    std::uint32_t outcome = 0;
    check(try_capture(offset, buf, len, time_ns, &outcome));
    return outcome;
  }
  in_flight begin(std::uint64_t offset, std::uint64_t len) {
    in_flight begun;
    check(cdp_tap_begin(get(), offset, len, begun.out()));
    return begun;
  }
  // Calls write(), which puts the data on the source and answers 0 or a negative errno, with the tap around it; returns what it answered. What it
  // throws comes out of here, and counts as a write that failed.
  template <typename Write>
  std::int32_t write_through(std::uint64_t offset, std::uint64_t len, std::uint32_t kind, const void *buf, Write &&write,
                             std::uint32_t *outcome_out = nullptr) {
    struct call {
      std::remove_reference_t<Write> *write;
      std::exception_ptr thrown;
      static std::int32_t run(void *userdata) {
        auto *self = static_cast<call *>(userdata);
        try {
          return (*self->write)();
        } catch (...) {
          self->thrown = std::current_exception();
          return -5;
        }
      }
    } around{&write, nullptr};
    std::int32_t answer = 0;
    check(cdp_tap_write_through(get(), offset, len, kind, buf, call::run, &around, &answer, outcome_out));
    if (around.thrown) std::rethrow_exception(around.thrown);
    return answer;
  }
  void mark(std::uint64_t offset, std::uint64_t len, std::uint32_t reason = CDP_GAP_HOST) {
    check(cdp_tap_mark(get(), offset, len, reason));
  }
  cdp_tap_stats stats() const {
    auto found = init<cdp_tap_stats>();
    check(cdp_tap_stats_get(get(), &found));
    return found;
  }
  std::vector<cdp_extent> dirty_extents() const {
    extent_iter iter;
    check(cdp_tap_dirty_extents(get(), iter.out()));
    return rest_of(iter);
  }
};

// Requests that are handed over and answered later, for threads that may not block.
class queue : public handle<cdp_queue, cdp_queue_close> {
 public:
  using handle::handle;
  cdp_status try_submit(const cdp_request &request) noexcept { return cdp_queue_submit(get(), &request); }
  void submit(const cdp_request &request) { check(try_submit(request)); }
  std::vector<cdp_answer> poll(std::size_t count_max = 64) {
    std::vector<cdp_answer> answers(count_max);
    std::size_t count = 0;
    check(cdp_queue_poll(get(), answers.data(), answers.size(), &count));
    answers.resize(count);
    return answers;
  }
};

// A run of a dirty map that is being copied. Given up without clean() it is dirty again.
class dirty_run : public handle<cdp_dirty_run, cdp_dirty_run_abandon> {
 public:
  using handle::handle;
  cdp_extent extent{};
  void clean() { check(cdp_dirty_run_clean(variable(), nullptr)); }
  void clean(const cdp_extent &read) { check(cdp_dirty_run_clean(variable(), &read)); }
};

class dirty_map : public handle<cdp_dirty_map, cdp_dirty_map_close> {
 public:
  using handle::handle;
  static dirty_map create(std::uint64_t bytes, std::uint64_t granularity_bytes = 0) {
    dirty_map made;
    check(cdp_dirty_map_create(bytes, granularity_bytes, made.out()));
    return made;
  }
  static dirty_map decode(const std::string &encoded, std::uint64_t bytes, cdp_uuid device, std::uint64_t generation) {
    dirty_map made;
    check(cdp_dirty_map_decode(encoded.data(), encoded.size(), bytes, device, generation, made.out()));
    return made;
  }
  std::string encode(cdp_uuid device, std::uint64_t generation) const {
    return *bytes_of([&](void *buf, std::size_t len, std::size_t *len_out) {
      return cdp_dirty_map_encode(get(), device, generation, buf, len, len_out);
    });
  }
  void set(std::uint64_t offset, std::uint64_t len) { check(cdp_dirty_map_set(get(), offset, len)); }
  void set_all() { check(cdp_dirty_map_set_all(get())); }
  std::uint64_t dirty_bytes() const {
    auto info = init<cdp_dirty_map_info>();
    check(cdp_dirty_map_info_get(get(), &info));
    return info.dirty_bytes;
  }
  std::vector<cdp_extent> extents() const {
    extent_iter iter;
    check(cdp_dirty_map_extents(get(), iter.out()));
    return rest_of(iter);
  }
  // The next run to copy from offset on; one that is empty (false) when nothing is dirty there.
  dirty_run begin(std::uint64_t offset, std::uint64_t bytes_max) {
    dirty_run run;
    check(cdp_dirty_map_begin(get(), offset, bytes_max, run.out(), &run.extent));
    return run;
  }
};

// A dirty map on an extent of a storage.
class map_file : public handle<cdp_map_file, cdp_map_file_close> {
 public:
  using handle::handle;
  static map_file create(const storage &in, std::uint64_t extent, const cdp_map_file_options &options) {
    map_file made;
    check(cdp_map_file_create(in.get(), extent, &options, made.out()));
    return made;
  }
  static map_file open(const storage &in, std::uint64_t extent, const cdp_map_file_options &options,
                       cdp_map_file_opened *found = nullptr) {
    map_file opened;
    check(cdp_map_file_open(in.get(), extent, &options, found, opened.out()));
    return opened;
  }
  dirty_map map() const {
    dirty_map of;
    check(cdp_map_file_map(get(), of.out()));
    return of;
  }
  map_write begin(std::uint64_t offset, std::uint64_t len) {
    map_write begun;
    check(cdp_map_file_begin(get(), offset, len, 0, begun.out()));
    return begun;
  }
};

class retention_plan : public handle<cdp_retention_plan, cdp_retention_plan_close> {
 public:
  using handle::handle;
  cdp_retention_plan_info info() const {
    auto found = init<cdp_retention_plan_info>();
    check(cdp_retention_plan_info_get(get(), &found));
    return found;
  }
  std::vector<cdp_retention_point> points() const { return all<cdp_retention_point>(cdp_retention_plan_point_at); }
  std::vector<cdp_retention_drop> drops() const { return all<cdp_retention_drop>(cdp_retention_plan_drop_at); }

 private:
  template <typename Item>
  std::vector<Item> all(cdp_status (*at)(const cdp_retention_plan *, std::size_t, Item *)) const {
    std::vector<Item> found;
    auto item = init<Item>();
    while (check(at(get(), found.size(), &item)) == CDP_OK) found.push_back(item);
    return found;
  }
};

class history_size : public handle<cdp_history_size, cdp_history_size_close> {
 public:
  using handle::handle;
  static history_size of_rate(const std::string &policy, std::uint64_t bytes_per_day, std::uint64_t working_set_bytes) {
    history_size made;
    check(cdp_size_of_rate(policy.c_str(), bytes_per_day, working_set_bytes, made.out()));
    return made;
  }
  std::uint64_t bytes() const {
    std::uint64_t found = 0;
    check(cdp_history_size_bytes(get(), &found));
    return found;
  }
  std::vector<cdp_tier_size> tiers() const {
    std::vector<cdp_tier_size> found;
    auto tier = init<cdp_tier_size>();
    while (check(cdp_history_size_tier_at(get(), found.size(), &tier)) == CDP_OK) found.push_back(tier);
    return found;
  }
  std::vector<std::string> assumptions() const {
    std::vector<std::string> found;
    while (auto text = bytes_of([&](char *buf, std::size_t len, std::size_t *len_out) {
             return cdp_history_size_assumption_at(get(), found.size(), buf, len, len_out);
           }))
      found.push_back(*text);
    return found;
  }
};

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
    bookmark_iter iter;
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
  tap open_tap(const cdp_source &source, const cdp_tap_options *options = nullptr, const char *volume = nullptr) {
    tap opened;
    check(cdp_tap_open(get(), volume, &source, options, opened.out()));
    return opened;
  }
  job start_resync(const cdp_source &source, const cdp_resync_options *options = nullptr, const char *volume = nullptr) {
    job started;
    check(cdp_resync_start(get(), volume, &source, options, started.out()));
    return started;
  }
  job start_verify(const cdp_source &source, const cdp_verify_options *options = nullptr, const char *volume = nullptr) {
    job started;
    check(cdp_verify_start(get(), volume, &source, options, started.out()));
    return started;
  }
  job start_check(std::uint32_t flags = 0) {
    job started;
    check(cdp_check_start(get(), flags, started.out()));
    return started;
  }
  // For the recorded policy, or another one.
  retention_plan plan(std::uint64_t now_ns = 0, const char *policy = nullptr) const {
    retention_plan made;
    check(cdp_retention_plan_open(get(), now_ns, policy, made.out()));
    return made;
  }
};

class snapshot : public handle<cdp_snapshot, cdp_snapshot_close> {
 public:
  using handle::handle;
  cdp_status try_read(std::uint64_t offset, void *buf, std::size_t len) const noexcept {
    return cdp_snapshot_read(get(), offset, buf, len);
  }
  void read(std::uint64_t offset, void *buf, std::size_t len) const { check(try_read(offset, buf, len)); }
  restore_job restore_to(const std::string &path) const {
    restore_job started;
    check(cdp_restore_start_file(get(), path.c_str(), started.out()));
    return started;
  }
  // At once, with threads that write what they read.
  cdp_restore_progress restore_file(const std::string &path, std::uint32_t threads = 0) const {
    auto options = init<cdp_restore_options>();
    auto progress = init<cdp_restore_progress>();
    options.threads = threads;
    check(cdp_snapshot_restore_file(get(), path.c_str(), &options, nullptr, &progress));
    return progress;
  }
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
    extent_iter iter;
    check(cdp_volume_changed(get(), seq_from, seq_to, iter.out()));
    return rest_of(iter);
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
  void repair_range(std::uint32_t number, std::uint64_t offset, std::uint64_t len) {
    check(cdp_mirror_repair_range(get(), number, offset, len));
  }
  // Good for one call that takes a source.
  cdp_source source() const {
    auto made = init<cdp_source>();
    check(cdp_mirror_source(get(), &made));
    return made;
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
