// The first program once more, in C++: handles close themselves, errors are exceptions or values.
//
//   protect_cpp DIRECTORY     (new or empty)
#include <array>
#include <cdp.hpp>
#include <cstdio>

int main(int argc, char **argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: protect_cpp DIRECTORY (new or empty)\n");
    return 2;
  }
  auto store = cdp::store::create(argv[1], 1 << 30);
  cdp::volume disk(store);
  std::array<unsigned char, 4096> block{};

  block.fill(1);
  disk.write(4096, block.data(), block.size());
  auto before = store.bookmark("before").point;
  block.fill(2);
  auto newest = disk.write(4096, block.data(), block.size(), CDP_WRITE_FUA);

  disk.at(before.seq).read(4096, block.data(), block.size());
  auto changed = disk.changed(before.seq, newest);
  if (block[0] != 1 || changed.size() != 1 || changed[0].offset != 4096 || store.bookmarks().size() != 1) return 1;
  // The same without exceptions, for a write path.
  if (cdp_status status = disk.try_write(1, block.data(), block.size()); status != CDP_ERR_UNALIGNED) return 1;
  try {
    store.resolve("bookmark:none");
    return 1;
  } catch (const cdp::error &error) {
    if (error.status() != CDP_ERR_POINT_EXPIRED || error.io_errno() <= 0) return 1;
  }
  store.close();
  std::printf("seq %llu is as it was at the bookmark\n", static_cast<unsigned long long>(before.seq));
  return 0;
} catch (const cdp::error &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
