// A mirror set through cdp.hpp: two files, one away and back.
#include <cdp.hpp>

#include <cstdio>
#include <cstring>

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      std::fprintf(stderr, "%d: not so: %s\n", __LINE__, #condition);          \
      return 1;                                                                \
    }                                                                          \
  } while (0)

int main(int argc, char **argv) try {
  constexpr std::uint64_t bytes = 4 << 20;
  CHECK(argc == 2);
  const std::string base = argv[1];
  const std::vector<std::string> files = {base + "-a.img", base + "-b.img"};
  for (const std::string &file : files) {
    cdp::mirror_copy copy;
    cdp::check(cdp_copy_create_file(file.c_str(), bytes, copy.out()));
  }
  unsigned char block[4096], back[4096];
  std::memset(block, 3, sizeof block);
  {
    auto set = cdp::mirror::create(base + "-set", bytes, files, CDP_ACK_ONE);
    set.write(0, block, sizeof block);
    set.offline(1);
    set.write(8192, block, sizeof block);
    set.flush();
    set.close();
  }
  auto set = cdp::mirror::open(base + "-set");
  CHECK(set.copies().size() == 2 && set.copies()[1].standing == CDP_COPY_OFFLINE);
  set.online(1);
  CHECK(set.repair().bytes_written == 4096);
  set.offline(0);
  set.read(8192, back, sizeof back);
  CHECK(std::memcmp(block, back, sizeof back) == 0);
  CHECK(set.try_read(1, back, sizeof back) == CDP_ERR_UNALIGNED);
  try {
    set.offline(1);
    return 1;
  } catch (const cdp::error &error) {
    CHECK(error.status() == CDP_ERR_MIRROR_REFUSED);
  }
  return 0;
} catch (const cdp::error &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
