/* A mirror set of three raw files: writes go to all of them, one is taken away and comes back, and gets only what it missed.
 *
 *   mirror DIRECTORY         (new; makes DIRECTORY/set and DIRECTORY/a.img, b.img, c.img)
 */
#define _XOPEN_SOURCE 700
#include "common.h"

#include <string.h>
#include <sys/stat.h>

enum { BLOCK = 4096, DISK = 64 << 20, WRITES = 500, COPIES = 3 };

static uint64_t place(int number) { return (uint64_t)number * 7919 % (DISK / BLOCK) * BLOCK; }

static void write_all(cdp_mirror *mirror, int from, int to) {
  unsigned char block[BLOCK];
  for (int number = from; number < to; number++) {
    memset(block, number % 255 + 1, sizeof block);
    MUST(cdp_mirror_write(mirror, place(number), block, sizeof block));
  }
  MUST(cdp_mirror_flush(mirror));
}

/* Every copy is a raw image of the volume: it can be read without the library. */
static void expect_image(const char *path, int writes) {
  unsigned char block[BLOCK];
  FILE *image = fopen(path, "rb");
  EXPECT(image != NULL);
  for (int number = 0; number < writes; number++) {
    EXPECT(fseek(image, (long)place(number), SEEK_SET) == 0 && fread(block, 1, BLOCK, image) == BLOCK);
    EXPECT(block[0] == number % 255 + 1 && block[BLOCK - 1] == block[0]);
  }
  fclose(image);
}

static void show(cdp_mirror *mirror) {
  static const char *const standings[] = {"?", "clean", "dirty", "offline", "missing", "refused"};
  cdp_mirror_status *status = NULL;
  cdp_copy_info info;
  CDP_INIT(info);
  MUST(cdp_mirror_status_open(mirror, &status));
  for (size_t index = 0; cdp_mirror_status_copy_at(status, index, &info) == CDP_OK; index++)
    printf("  copy %u: %s, %llu bytes to repair%s%s\n", info.number, standings[info.standing],
           (unsigned long long)info.dirty_bytes, info.trouble[0] ? ": " : "", info.trouble);
  MUST(cdp_mirror_status_close(&status));
}

int main(int argc, char **argv) {
  char set[512], paths[COPIES][512];
  cdp_mirror *mirror = NULL;
  cdp_mirror_create_options options;
  cdp_new_copy copies[COPIES];
  cdp_mirror_status *dry_run = NULL;
  cdp_handshake handshake;
  cdp_mirror_repair *repair = NULL;
  cdp_mirror_repair_progress progress;
  cdp_mirror_verify *verify = NULL;
  cdp_mirror_verify_progress verified;
  cdp_status status;

  if (argc != 2 || mkdir(argv[1], 0700) != 0) {
    fprintf(stderr, "usage: mirror DIRECTORY (new)\n");
    return 2;
  }
  snprintf(set, sizeof set, "%s/set", argv[1]);
  for (int at = 0; at < COPIES; at++) {
    cdp_copy *file = NULL;
    snprintf(paths[at], sizeof paths[at], "%s/%c.img", argv[1], 'a' + at);
    MUST(cdp_copy_create_file(paths[at], DISK, &file));
    MUST(cdp_copy_close(&file));
    copies[at].locator = paths[at];
    copies[at].copy = NULL; /* the file of that path */
  }
  CDP_INIT(options);
  options.bytes = DISK;
  options.ack = CDP_ACK_QUORUM; /* two of three */
  MUST(cdp_mirror_create(set, &options, copies, COPIES, &mirror));
  write_all(mirror, 0, WRITES);

  MUST(cdp_mirror_offline(mirror, 1));
  write_all(mirror, WRITES, WRITES + 20);
  printf("copy 1 was away for 20 writes:\n");
  show(mirror);
  MUST(cdp_mirror_close(&mirror));

  /* Who would repair whom? Nothing is changed by asking. */
  CDP_INIT(handshake);
  MUST(cdp_mirror_examine(set, NULL, &dry_run));
  for (size_t index = 0; cdp_mirror_status_pair_at(dry_run, index, &handshake) == CDP_OK; index++)
    printf("  copies %u and %u: %s (%s)\n", handshake.first, handshake.second, handshake.rule, handshake.reason);
  MUST(cdp_mirror_status_close(&dry_run));

  MUST(cdp_mirror_open(set, NULL, &mirror));
  MUST(cdp_mirror_online(mirror, 1, NULL, &handshake));
  EXPECT(handshake.decision == CDP_DECISION_BY_MAP && handshake.to == 1);
  CDP_INIT(progress);
  MUST(cdp_mirror_repair_start(mirror, NULL, &repair));
  do {
    status = cdp_mirror_repair_step(repair, 16 << 10, &progress);
    MUST(status);
    printf("  repaired %llu bytes, %llu left\n", (unsigned long long)progress.bytes_written,
           (unsigned long long)progress.bytes_left);
  } while (status == CDP_OK);
  MUST(cdp_mirror_repair_close(&repair));
  EXPECT(progress.bytes_written == 20 * BLOCK && progress.copies_whole == 1);

  CDP_INIT(verified);
  MUST(cdp_mirror_verify_start(mirror, NULL, &verify));
  do {
    status = cdp_mirror_verify_step(verify, 8 << 20, &verified);
    MUST(status);
  } while (status == CDP_OK);
  MUST(cdp_mirror_verify_close(&verify));
  EXPECT(verified.bytes_compared == DISK && verified.bytes_different == 0 && verified.bytes_unreadable == 0);
  show(mirror);
  MUST(cdp_mirror_close(&mirror));
  for (int at = 0; at < COPIES; at++) expect_image(paths[at], WRITES + 20);
  printf("all copies are equal\n");
  return 0;
}
