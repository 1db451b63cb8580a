// Every kind of handle through cdp.hpp: made, used and closed, and what is left when one is given up early.
#include <cdp.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      std::fprintf(stderr, "%d: not so: %s\n", __LINE__, #condition); \
      std::exit(1);                                                   \
    }                                                                 \
  } while (0)

namespace {

constexpr std::uint64_t bytes = 8 << 20;
constexpr std::size_t block_bytes = 4096;
std::vector<unsigned char> disk(bytes);

std::int32_t disk_read(void *, std::uint64_t offset, void *buf, std::size_t len) {
  std::memcpy(buf, disk.data() + offset, len);
  return 0;
}

cdp_source source() {
  auto made = cdp::init<cdp_source>();
  made.read = disk_read;
  return made;
}

void jobs(cdp::store &store, const std::string &base) {
  std::memset(disk.data(), 3, 3 << 20);
  auto resync = store.start_resync(source());
  std::uint64_t steps = 0;
  CHECK(resync.run([&](const cdp_job_progress &) { steps++; }, 1 << 20) && steps > 2);
  CHECK(resync.resync_report().bytes_different == 3 << 20);
  resync.close();
  disk[5] ^= 1;
  auto verify = store.start_verify(source());
  cdp::check(verify.try_step());
  cdp::check(verify.try_step());
  const auto cursor = verify.verify_cursor();
  CHECK(cursor && !cursor->empty());
  verify.close();
  auto options = cdp::init<cdp_verify_options>();
  options.cursor = cursor->data();
  options.cursor_len = cursor->size();
  verify = store.start_verify(source(), &options);
  CHECK(verify.run() && verify.verify_extents().size() == 1 && !verify.verify_cursor());
  CHECK(verify.verify_report().bytes_compared < bytes);
  auto check = store.start_check();
  check.limit_rate(1);
  check.cancel();
  CHECK(!check.run());
  try {
    check.verify_report();
    CHECK(false);
  } catch (const cdp::error &error) {
    CHECK(error.status() == CDP_ERR_INVALID_ARGUMENT);
  }
  cdp::volume volume(store);
  auto snapshot = volume.at(store.resolve("latest").seq);
  auto restore = snapshot.restore_to(base + "-restored.img");
  restore.set_readers(2);
  CHECK(restore.run().bytes_done == bytes);
  const auto at_once = base + "-at-once.img";
  CHECK(snapshot.restore_file(at_once, 2).bytes_done == bytes);
  try {
    snapshot.restore_file(at_once);
    CHECK(false);
  } catch (const cdp::error &error) {
    CHECK(error.status() == CDP_ERR_EXISTS);
  }
  disk[5] ^= 1;
}

void taps(cdp::store &store) {
  auto options = cdp::init<cdp_tap_options>();
  options.source_state = CDP_SOURCE_EQUAL;
  auto tap = store.open_tap(source(), &options);
  std::array<unsigned char, block_bytes> block{};
  block.fill(9);
  std::memcpy(disk.data(), block.data(), block.size());
  CHECK(tap.capture(0, block.data(), block.size()) == CDP_CAPTURED_WHOLE);
  CHECK(tap.try_capture(1, block.data(), block.size()) == CDP_ERR_UNALIGNED);
  auto write = tap.begin(block_bytes, block_bytes);
  std::memcpy(disk.data() + block_bytes, block.data(), block.size());
  CHECK(write.end(CDP_WRITTEN_DATA, block.data(), block.size()) == CDP_CAPTURED_WHOLE && !write);
  const auto put = [&block] {
    std::memcpy(disk.data() + 2 * block_bytes, block.data(), block.size());
    return 0;
  };
  std::uint32_t outcome = 0;
  CHECK(tap.write_through(2 * block_bytes, block_bytes, CDP_WRITTEN_DATA, block.data(), put, &outcome) == 0);
  CHECK(outcome == CDP_CAPTURED_WHOLE);
  {
    // Given up, it is marked.
    auto lost = tap.begin(5 * block_bytes, block_bytes);
  }
  tap.begin(7 * block_bytes, block_bytes).cancel();
  try {
    tap.write_through(5 * block_bytes, block_bytes, CDP_WRITTEN_ZEROES, nullptr,
                      []() -> std::int32_t { throw std::runtime_error("the disk is gone"); });
    CHECK(false);
  } catch (const std::runtime_error &error) {
    CHECK(std::string(error.what()) == "the disk is gone");
  }
  tap.mark(9 * block_bytes, block_bytes);
  CHECK(tap.dirty_extents().size() == 2 && tap.stats().dirty_bytes == 2 * block_bytes);
  tap.close();
}

void queues(cdp::store &store) {
  cdp::volume volume(store);
  cdp::queue queue;
  auto options = cdp::init<cdp_queue_options>();
  options.depth = 4;
  cdp::check(cdp_queue_open(volume.get(), &options, queue.out()));
  std::array<unsigned char, block_bytes> block{};
  auto request = cdp::init<cdp_request>();
  request.op = CDP_REQUEST_READ;
  request.buf = block.data();
  request.len = block.size();
  request.tag = 7;
  queue.submit(request);
  CHECK(queue.poll().empty());
  cdp::check(cdp_queue_run(queue.get(), 1));
  const auto answers = queue.poll();
  CHECK(answers.size() == 1 && answers[0].tag == 7 && answers[0].status == CDP_OK && block[0] == 9);
}

void maps() {
  const cdp_uuid device{{1}};
  auto map = cdp::dirty_map::create(1 << 30, 4096);
  CHECK(!map.begin(0, 1 << 20));
  map.set(0, 1);
  map.set(1 << 20, 1 << 20);
  {
    // Given up, it is dirty again.
    auto run = map.begin(0, 1 << 20);
    CHECK(run && run.extent.len == 4096);
  }
  CHECK(map.dirty_bytes() == 4096 + (1 << 20));
  auto run = map.begin(1 << 20, 1 << 20);
  run.clean();
  CHECK(!run && map.extents().size() == 1);
  auto partly = map.begin(0, 4096);
  partly.clean(cdp_extent{0, 100});
  const auto copy = cdp::dirty_map::decode(map.encode(device, 3), 1 << 30, device, 3);
  CHECK(copy.dirty_bytes() == 4096);
  map.set_all();
  CHECK(map.dirty_bytes() == 1 << 30);

  cdp::storage storage;
  cdp::check(cdp_storage_open_memory(0, storage.out()));
  auto options = cdp::init<cdp_map_file_options>();
  options.bytes = 1 << 30;
  options.device = device;
  auto file = cdp::map_file::create(storage, 1, options);
  {
    auto lost = file.begin(0, 4096);
    auto kept = file.begin(1 << 20, 4096);
    cdp::check(cdp_map_write_end(kept.variable(), 1));
  }
  CHECK(file.map().dirty_bytes() == 4096);
  file.close();
  auto found = cdp::init<cdp_map_file_opened>();
  file = cdp::map_file::open(storage, 1, options, &found);
  CHECK(found.flags == CDP_MAP_WAS_CLEAN && file.map().dirty_bytes() == 4096);
}

void plans(const cdp::store &store) {
  const char *policy = "[[window]]\nto = \"1h\"\nkeep = \"all\"\n";
  const auto plan = store.plan(0, policy);
  CHECK(plan.points().size() == plan.info().points && plan.drops().size() == plan.info().bookmarks_dropped);
  const auto size = cdp::history_size::of_rate(policy, 1 << 30, 1 << 20);
  CHECK(size.tiers().size() == 2 && size.bytes() > 1 << 20 && size.assumptions().size() >= 3);
  cdp::timeline timeline;
  cdp::check(cdp_timeline_open(store.get(), timeline.out()));
  auto info = cdp::init<cdp_timeline_info>();
  cdp::check(cdp_timeline_info_get(timeline.get(), &info));
  CHECK(info.newest.seq > 0);
}

void mirrors(const std::string &base) {
  const std::vector<std::string> files = {base + "-a.img", base + "-b.img"};
  for (const std::string &file : files) {
    cdp::mirror_copy copy;
    cdp::check(cdp_copy_create_file(file.c_str(), bytes, copy.out()));
  }
  auto set = cdp::mirror::create(base + "-set", bytes, files, CDP_ACK_ALL);
  set.write(0, disk.data(), bytes);
  set.repair_range(1, 0, block_bytes);
  auto store = cdp::store::create(base + "-of-a-mirror", bytes);
  CHECK(store.start_resync(set.source()).run());
  auto verify = store.start_verify(set.source());
  CHECK(verify.run() && verify.verify_report().bytes_different == 0);
  verify.close();
  store.close();
  set.close();
}

}  // namespace

int main(int argc, char **argv) try {
  CHECK(argc == 2);
  const std::string base = std::string(argv[1]) + "-wrapper";
  auto store = cdp::store::create(base, bytes);
  jobs(store, base);
  taps(store);
  queues(store);
  plans(store);
  store.close();
  maps();
  mirrors(base);
  return 0;
} catch (const cdp::error &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
