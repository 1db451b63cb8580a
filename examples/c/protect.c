/* A first program: the store is the disk. Write, set a bookmark, overwrite, and read what was there before.
 *
 *   protect DIRECTORY     (new or empty)
 */
#include "common.h"

#include <string.h>

int main(int argc, char **argv) {
  cdp_store *store = NULL;
  cdp_volume *disk = NULL;
  cdp_snapshot *before = NULL;
  cdp_create_options create;
  cdp_point point;
  cdp_volume_stats stats;
  unsigned char block[4096];
  uint64_t durable;

  if (argc != 2) {
    fprintf(stderr, "usage: protect DIRECTORY (new or empty)\n");
    return 2;
  }
  CDP_INIT(create);
  create.bytes = 1 << 30;
  MUST(cdp_store_create(argv[1], &create, &store));
  MUST(cdp_volume_open(store, "disk", &disk));

  memset(block, 1, sizeof block);
  MUST(cdp_volume_write(disk, 4096, block, sizeof block, 0, NULL));
  MUST(cdp_bookmark_create(store, "before", NULL, NULL, NULL));
  memset(block, 2, sizeof block);
  MUST(cdp_volume_write(disk, 4096, block, sizeof block, 0, NULL));
  MUST(cdp_volume_flush(disk, &durable));

  MUST(cdp_resolve(store, "bookmark:before", &point));
  MUST(cdp_snapshot_open(disk, point.seq, 0, &before));
  MUST(cdp_snapshot_read(before, 4096, block, sizeof block));
  EXPECT(block[0] == 1 && block[4095] == 1);
  MUST(cdp_volume_read(disk, 4096, block, sizeof block));
  EXPECT(block[0] == 2 && block[4095] == 2);

  CDP_INIT(stats);
  MUST(cdp_volume_stats_get(disk, &stats));
  printf("%llu writes, durable up to seq %llu; seq %llu is as it was at the bookmark\n",
         (unsigned long long)stats.writes, (unsigned long long)durable, (unsigned long long)point.seq);
  /* What comes from the store is closed with it. */
  MUST(cdp_store_close(&store));
  return 0;
}
