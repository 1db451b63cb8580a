/* Something overwrites a disk, write by write. Find the last write before it by looking at every state, see what it has touched, and restore
 * the state before it into an image, at the program's own pace.
 *
 *   rewind DIRECTORY      (new; makes DIRECTORY/store and DIRECTORY/restored.img)
 */
#include "common.h"

#include <string.h>
#include <sys/stat.h>

enum { BLOCK = 4096, BLOCKS = 256, FILES = 64 };

static uint64_t write_block(cdp_volume *disk, uint64_t block_number, const char *text) {
  static char block[BLOCK];
  uint64_t seq;
  memset(block, 0, sizeof block);
  snprintf(block, sizeof block, "%s", text);
  MUST(cdp_volume_write(disk, block_number * BLOCK, block, sizeof block, 0, &seq));
  return seq;
}

/* Whether a state shows the damage: here, whether any block says so. A real host would mount it and ask its tools. */
static int is_damaged(cdp_volume *disk, uint64_t seq) {
  cdp_snapshot *snapshot = NULL;
  static char block[BLOCK];
  int damaged = 0;
  MUST(cdp_snapshot_open(disk, seq, 0, &snapshot));
  for (uint64_t at = 0; at < FILES && !damaged; at++) {
    MUST(cdp_snapshot_read(snapshot, at * BLOCK, block, sizeof block));
    damaged = strncmp(block, "ENCRYPTED", 9) == 0;
  }
  MUST(cdp_snapshot_close(&snapshot));
  return damaged;
}

int main(int argc, char **argv) {
  char path[512], image[512], text[64];
  cdp_store *store = NULL;
  cdp_volume *disk = NULL;
  cdp_snapshot *good = NULL;
  cdp_extent_iter *changed = NULL;
  cdp_restore *restore = NULL;
  cdp_restore_progress progress;
  cdp_create_options create;
  cdp_extent extent;
  cdp_status status;
  uint64_t first_damage = 0, newest = 0, low, high, touched = 0, steps = 0;

  if (argc != 2 || mkdir(argv[1], 0700) != 0) {
    fprintf(stderr, "usage: rewind DIRECTORY (new)\n");
    return 2;
  }
  snprintf(path, sizeof path, "%s/store", argv[1]);
  snprintf(image, sizeof image, "%s/restored.img", argv[1]);
  CDP_INIT(create);
  create.bytes = BLOCKS * BLOCK;
  MUST(cdp_store_create(path, &create, &store));
  MUST(cdp_volume_open(store, NULL, &disk));

  for (int at = 0; at < FILES; at++) {
    snprintf(text, sizeof text, "file %d", at);
    write_block(disk, (uint64_t)at, text);
  }
  for (int at = 0; at < FILES; at += 2) {
    newest = write_block(disk, (uint64_t)at, "ENCRYPTED");
    if (at == 0) first_damage = newest;
  }

  /* Every write is a point, so that the first bad one is found by halving. */
  low = 0;
  high = newest;
  while (high - low > 1) {
    uint64_t middle = low + (high - low) / 2;
    steps++;
    if (is_damaged(disk, middle)) high = middle;
    else low = middle;
  }
  EXPECT(high == first_damage);
  printf("the first bad write is seq %llu, found in %llu looks\n", (unsigned long long)high, (unsigned long long)steps);

  MUST(cdp_volume_changed(disk, low, newest, &changed));
  while ((status = cdp_extent_iter_next(changed, &extent)) == CDP_OK) touched += extent.len;
  MUST(status);
  EXPECT(touched == FILES / 2 * BLOCK);
  printf("since then %llu bytes were written\n", (unsigned long long)touched);

  MUST(cdp_snapshot_open(disk, low, 0, &good));
  MUST(cdp_restore_start_file(good, image, &restore));
  CDP_INIT(progress);
  while ((status = cdp_restore_step(restore, 1 << 20, &progress)) == CDP_OK) {
    /* Here a host does what else it has to do. */
  }
  MUST(status);
  printf("%llu bytes restored, %llu of them data\n", (unsigned long long)progress.bytes_done,
         (unsigned long long)progress.data_bytes);
  MUST(cdp_restore_close(&restore));

  FILE *restored = fopen(image, "rb");
  EXPECT(restored != NULL);
  for (int at = 0; at < FILES; at++) {
    char block[BLOCK];
    snprintf(text, sizeof text, "file %d", at);
    EXPECT(fread(block, 1, BLOCK, restored) == BLOCK && strcmp(block, text) == 0);
  }
  fclose(restored);
  MUST(cdp_store_close(&store));
  return 0;
}
