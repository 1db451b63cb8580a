/* Mirror sets: copies that the host supplies and copies in files, away and back, failing, compared, mended; and what is refused. */
#include "memory_copy.h"

enum { DISK = 4 << 20 };

/* The host finds a copy by what it said of it: a letter. Letter 'x' is nowhere. */
static int32_t find(void *userdata, uint32_t number, const char *locator, cdp_copy **copy_out) {
  ++*(int *)userdata;
  CHECK(number < 16 && strlen(locator) == 1);
  if (locator[0] == 'x') return -ENODEV;
  *copy_out = copy_of(locator[0] - 'a');
  return 0;
}

static cdp_copy_info copy_at(cdp_mirror *mirror, size_t index) {
  cdp_mirror_status *status = NULL;
  cdp_copy_info info;
  CDP_INIT(info);
  OK(cdp_mirror_status_open(mirror, &status));
  OK(cdp_mirror_status_copy_at(status, index, &info));
  OK(cdp_mirror_status_close(&status));
  return info;
}

/* Steps a repair to its end and returns the bytes that were written. */
static uint64_t repaired(cdp_mirror *mirror, const cdp_mirror_repair_options *options) {
  cdp_mirror_repair *repair = NULL;
  cdp_mirror_repair_progress progress;
  cdp_status status;
  CDP_INIT(progress);
  OK(cdp_mirror_repair_start(mirror, options, &repair));
  while ((status = cdp_mirror_repair_step(repair, 1 << 20, &progress)) == CDP_OK) {
  }
  CHECK(status == CDP_END && progress.bytes_left == 0);
  OK(cdp_mirror_repair_close(&repair));
  return progress.bytes_written;
}

/* Copies of the host, from the first write to a set that is decided by hand. */
static void copies_of_the_host(void) {
  static unsigned char block[BLOCK], back[BLOCK];
  cdp_storage *storage = NULL;
  cdp_mirror_options open;
  cdp_mirror_create_options options;
  cdp_copy_opener opener;
  cdp_mirror *mirror = NULL, *second = NULL;
  cdp_mirror_status *status = NULL;
  cdp_mirror_info info;
  cdp_copy_info copy_info;
  cdp_handshake handshake;
  cdp_copy *copies[COPIES] = {NULL};
  cdp_new_copy new[COPIES];
  cdp_extent_iter *claim = NULL;
  cdp_extent extent;
  uint64_t bytes = 7;
  uint32_t number = 99;
  int found = 0;

  OK(cdp_storage_open_memory(0, &storage));
  CDP_INIT(open);
  CDP_INIT(options);
  CDP_INIT(opener);
  CDP_INIT(info);
  CDP_INIT(copy_info);
  CDP_INIT(handshake);
  opener.userdata = &found;
  opener.open = find;
  open.storage = storage;
  options.bytes = DISK;
  options.ack = CDP_ACK_QUORUM;
  options.open = &open;
  for (int at = 0; at < 3; at++) {
    static const char *const letters[] = {"a", "b", "c"};
    copies[at] = copy_of(at);
    new[at].locator = letters[at];
    new[at].copy = copies[at];
  }
  /* What is refused leaves nothing behind. */
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(NULL, &options, new, 0, &mirror));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(NULL, &options, NULL, 3, &mirror));
  new[1].copy = copies[0];
  EXPECT(CDP_ERR_EXISTS, cdp_mirror_create(NULL, &options, new, 3, &mirror));
  new[1].copy = copies[1];
  options.ack = 3;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(NULL, &options, new, 3, &mirror));
  options.ack = CDP_ACK_QUORUM;
  options.granularity_bytes = 5000;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(NULL, &options, new, 3, &mirror));
  options.granularity_bytes = 0;
  options.bytes = 2 * DISK;
  EXPECT(CDP_ERR_MIRROR_REFUSED, cdp_mirror_create(NULL, &options, new, 3, &mirror));
  options.bytes = DISK;
  open.opener = &opener;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_create(NULL, &options, new, 3, &mirror));
  open.opener = NULL;
  CHECK(mirror == NULL);
  OK(cdp_mirror_create(NULL, &options, new, 3, &mirror));
  for (int at = 0; at < 3; at++) OK(cdp_copy_close(&copies[at]));
  CHECK(memory[0].freed == 0);
  EXPECT(CDP_ERR_BUSY, cdp_mirror_open(NULL, &open, &second));

  OK(cdp_mirror_size(mirror, &bytes));
  CHECK(bytes == DISK);
  fill(block, BLOCK, 1);
  OK(cdp_mirror_write(mirror, 0, block, BLOCK));
  OK(cdp_mirror_flush(mirror));
  for (int at = 0; at < 3; at++) CHECK(is_all(memory[at].data, BLOCK, 1));
  EXPECT(CDP_ERR_UNALIGNED, cdp_mirror_write(mirror, 1, block, BLOCK));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_mirror_write(mirror, DISK, block, BLOCK));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_mirror_read(mirror, UINT64_MAX - 511, back, BLOCK));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_read(mirror, 0, NULL, BLOCK));

  /* A copy that is away misses writes; its map says which, and a repair gives it those alone. */
  EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_offline(mirror, 9));
  OK(cdp_mirror_offline(mirror, 1));
  CHECK(copy_at(mirror, 1).standing == CDP_COPY_OFFLINE);
  fill(block, BLOCK, 2);
  OK(cdp_mirror_write(mirror, BLOCK, block, BLOCK));
  OK(cdp_mirror_write_zeroes(mirror, 3 * BLOCK, BLOCK));
  OK(cdp_mirror_discard(mirror, 0, BLOCK));
  CHECK(is_all(memory[1].data, BLOCK, 1) && is_all(memory[2].data, BLOCK, 0));
  OK(cdp_mirror_claim(mirror, 1, &claim));
  OK(cdp_extent_iter_next(claim, &extent));
  CHECK(extent.offset == 0 && extent.len == 2 * BLOCK);
  OK(cdp_extent_iter_close(&claim));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_claim(mirror, 9, &claim));
  OK(cdp_mirror_online(mirror, 1, NULL, &handshake));
  CHECK(handshake.decision == CDP_DECISION_BY_MAP && handshake.second == 1 && handshake.to == 1);
  CHECK(handshake.from == handshake.first && strlen(handshake.rule) > 0 && strlen(handshake.reason) > 0);
  copy_info = copy_at(mirror, 1);
  CHECK(copy_info.standing == CDP_COPY_DIRTY && copy_info.dirty_bytes == 3 * BLOCK);
  CHECK(strcmp(copy_info.locator, "b") == 0);
  CHECK(repaired(mirror, NULL) == 2 * BLOCK); /* the zeroes were there already */
  CHECK(copy_at(mirror, 1).standing == CDP_COPY_CLEAN && is_all(memory[1].data, BLOCK, 0));

  /* A copy that fails leaves by itself; with too few the write is not acknowledged. */
  OK(cdp_mirror_flush(mirror));
  memory[2].fail_writes = 1;
  OK(cdp_mirror_write(mirror, 5 * BLOCK, block, BLOCK));
  copy_info = copy_at(mirror, 2);
  CHECK(copy_info.standing == CDP_COPY_OFFLINE && strlen(copy_info.trouble) > 0);
  OK(cdp_mirror_offline(mirror, 1));
  EXPECT(CDP_ERR_TOO_FEW_COPIES, cdp_mirror_write(mirror, 6 * BLOCK, block, BLOCK));
  CHECK(is_all(memory[0].data + 6 * BLOCK, BLOCK, 0));
  EXPECT(CDP_ERR_MIRROR_REFUSED, cdp_mirror_offline(mirror, 0));
  memory[2].fail_writes = 0;
  OK(cdp_mirror_online(mirror, 2, NULL, NULL));
  OK(cdp_mirror_write(mirror, 7 * BLOCK, block, BLOCK));
  OK(cdp_mirror_online(mirror, 1, NULL, NULL));

  /* A repair for one copy, closed early, goes on in the next one. */
  {
    cdp_mirror_repair_options one;
    cdp_mirror_repair *repair = NULL;
    CDP_INIT(one);
    one.copy = 2;
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_repair_start(mirror, &one, &repair));
    one.flags = CDP_REPAIR_ONE_COPY;
    OK(cdp_mirror_repair_start(mirror, &one, &repair));
    OK(cdp_mirror_repair_close(&repair));
    CHECK(copy_at(mirror, 2).standing == CDP_COPY_DIRTY);
    CHECK(repaired(mirror, &one) == BLOCK);
    CHECK(copy_at(mirror, 2).standing == CDP_COPY_CLEAN);
    CHECK(copy_at(mirror, 1).standing == CDP_COPY_DIRTY);
    CHECK(repaired(mirror, NULL) == BLOCK);
  }

  /* A copy that was changed behind the set's back is found by a comparison, with the two that agree as the proposal. */
  {
    cdp_mirror_verify_options right;
    cdp_mirror_verify *verify = NULL;
    cdp_mirror_verify_progress progress;
    cdp_difference difference;
    CDP_INIT(right);
    CDP_INIT(progress);
    CDP_INIT(difference);
    fill(memory[0].data + (2 << 20), BLOCK, 66);
    OK(cdp_mirror_verify_start(mirror, NULL, &verify));
    EXPECT(CDP_END, cdp_mirror_verify_difference_at(verify, 0, &difference));
    OK(cdp_mirror_verify_step(verify, 1 << 20, &progress));
    CHECK(progress.next_offset == 1 << 20 && progress.bytes_total == DISK && progress.differences == 0);
    EXPECT(CDP_END, cdp_mirror_verify_step(verify, UINT64_MAX, &progress));
    CHECK(progress.bytes_compared == DISK && progress.bytes_different == BLOCK && progress.differences == 1);
    OK(cdp_mirror_verify_difference_at(verify, 0, &difference));
    CHECK(difference.offset == 2 << 20 && difference.len == BLOCK);
    CHECK(difference.flags == CDP_DIFFERENCE_MAJORITY && difference.majority == 1);
    OK(cdp_mirror_verify_close(&verify));
    right.right = 1;
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_verify_start(mirror, &right, &verify));
    right.flags = CDP_MIRROR_VERIFY_REPAIR;
    right.from_offset = 2 << 20;
    OK(cdp_mirror_verify_start(mirror, &right, &verify));
    EXPECT(CDP_END, cdp_mirror_verify_step(verify, DISK, &progress));
    CHECK(progress.bytes_repaired == BLOCK && is_all(memory[0].data + (2 << 20), BLOCK, 0));
    OK(cdp_mirror_verify_close(&verify));
    right.right = 7;
    OK(cdp_mirror_verify_start(mirror, &right, &verify));
    EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_verify_step(verify, DISK, NULL));
    OK(cdp_mirror_verify_close(&verify));
  }

  /* One more copy, and one less. */
  copies[3] = copy_of(3);
  new[3].locator = "d";
  new[3].copy = copies[3];
  OK(cdp_mirror_add(mirror, &new[3], &number));
  CHECK(number == 3);
  EXPECT(CDP_ERR_EXISTS, cdp_mirror_add(mirror, &new[3], NULL));
  OK(cdp_copy_close(&copies[3]));
  CHECK(repaired(mirror, NULL) == 3 * BLOCK);
  CHECK(is_all(memory[3].data + BLOCK, BLOCK, 2) && copy_at(mirror, 3).standing == CDP_COPY_CLEAN);
  OK(cdp_mirror_remove(mirror, 2));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_remove(mirror, 2));
  CHECK(memory[2].freed == 1);
  OK(cdp_mirror_resize(mirror, 2 * DISK));
  OK(cdp_mirror_write(mirror, 2 * DISK - BLOCK, block, BLOCK));
  CHECK(is_all(memory[3].data + 2 * DISK - BLOCK, BLOCK, 2));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_mirror_resize(mirror, 1000));

  /* Everything of a set goes with it, and it is found again by locators. */
  OK(cdp_mirror_status_open(mirror, &status));
  OK(cdp_mirror_close(&mirror));
  OK(cdp_mirror_close(&mirror));
  EXPECT(CDP_ERR_CLOSED, cdp_mirror_status_info_get(status, &info));
  CHECK(memory[0].freed == 1 && memory[1].freed == 1 && memory[3].freed == 1);
  open.opener = &opener;
  OK(cdp_mirror_examine(NULL, &open, &status));
  OK(cdp_mirror_status_info_get(status, &info));
  CHECK(found == 3 && info.copies == 3 && info.pairs == 3 && info.bytes == 2 * DISK);
  CHECK(info.flags == (CDP_MIRROR_CLEAN | CDP_MIRROR_HAS_SOURCE) && info.ack == CDP_ACK_QUORUM);
  for (size_t at = 0; at < 3; at++) {
    OK(cdp_mirror_status_pair_at(status, at, &handshake));
    CHECK(handshake.decision == CDP_DECISION_NOTHING);
  }
  EXPECT(CDP_END, cdp_mirror_status_pair_at(status, 3, &handshake));
  EXPECT(CDP_END, cdp_mirror_status_copy_at(status, 3, &copy_info));
  OK(cdp_mirror_status_close(&status));

  /* Both copies of a pair went on without the other: a split brain, which only the host can decide. */
  OK(cdp_mirror_open(NULL, &open, &mirror));
  OK(cdp_mirror_remove(mirror, 3));
  OK(cdp_mirror_close(&mirror));
  fill(memory[0].data + BLOCK, BLOCK, 70);
  fill(memory[1].data + BLOCK, BLOCK, 71);
  memory[0].changes++;
  memory[1].changes++;
  OK(cdp_mirror_open(NULL, &open, &mirror));
  CHECK(copy_at(mirror, 0).standing == CDP_COPY_REFUSED);
  EXPECT(CDP_ERR_MIRROR_REFUSED, cdp_mirror_read(mirror, 0, back, BLOCK));
  OK(cdp_mirror_resolve(mirror, 1));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_resolve(mirror, 9));
  OK(cdp_mirror_online(mirror, 0, NULL, &handshake));
  CHECK(repaired(mirror, NULL) > 0);
  OK(cdp_mirror_read(mirror, BLOCK, back, BLOCK));
  CHECK(is_all(back, BLOCK, 71) && is_all(memory[0].data + BLOCK, BLOCK, 71));

  /* A copy that cannot be read is no loss; a closed set is. */
  memory[0].fail_reads = 1;
  OK(cdp_mirror_read(mirror, BLOCK, back, BLOCK));
  memory[0].fail_reads = 0;
  second = mirror;
  OK(cdp_mirror_close(&mirror));
  EXPECT(CDP_ERR_CLOSED, cdp_mirror_write(second, 0, block, BLOCK));
  OK(cdp_storage_close(&storage));
}

/* Copies in files, found by their paths. */
static void copies_in_files(int argc, char **argv) {
  static unsigned char block[BLOCK], back[BLOCK];
  char path[256], first[256], second[256], moved[256];
  cdp_mirror_create_options options;
  cdp_mirror *mirror = NULL;
  cdp_mirror_status *status = NULL;
  cdp_mirror_info info;
  cdp_copy *copy = NULL;
  cdp_new_copy new[2];
  FILE *file;

  in_directory(path, sizeof path, argc, argv, "set");
  in_directory(first, sizeof first, argc, argv, "a.img");
  in_directory(second, sizeof second, argc, argv, "b.img");
  in_directory(moved, sizeof moved, argc, argv, "c.img");
  CDP_INIT(options);
  CDP_INIT(info);
  options.bytes = DISK;
  options.region_bytes = 1 << 20;
  EXPECT(CDP_ERR_NOT_FOUND, cdp_copy_open_file(first, &copy));
  OK(cdp_copy_create_file(first, DISK, &copy));
  OK(cdp_copy_close(&copy));
  EXPECT(CDP_ERR_EXISTS, cdp_copy_create_file(first, DISK, &copy));
  OK(cdp_copy_create_file(second, DISK, &copy));
  OK(cdp_copy_close(&copy));
  new[0].locator = first;
  new[0].copy = NULL;
  new[1].locator = second;
  new[1].copy = NULL;
  OK(cdp_mirror_create(path, &options, new, 2, &mirror));
  fill(block, BLOCK, 5);
  OK(cdp_mirror_write(mirror, 0, block, BLOCK));
  OK(cdp_mirror_offline(mirror, 1));
  fill(block, BLOCK, 6);
  OK(cdp_mirror_write(mirror, BLOCK, block, BLOCK));
  OK(cdp_mirror_close(&mirror));
  /* Moved while the set is closed: the host says where it is now. */
  CHECK(rename(second, moved) == 0);
  OK(cdp_mirror_examine(path, NULL, &status));
  OK(cdp_mirror_status_info_get(status, &info));
  CHECK(info.copies == 2 && info.pairs == 0 && info.source == 0);
  OK(cdp_mirror_status_close(&status));
  OK(cdp_mirror_open(path, NULL, &mirror));
  CHECK(copy_at(mirror, 1).standing == CDP_COPY_MISSING);
  EXPECT(CDP_ERR_MIRROR_REFUSED, cdp_mirror_online(mirror, 1, NULL, NULL));
  OK(cdp_copy_open_file(moved, &copy));
  OK(cdp_mirror_online(mirror, 1, copy, NULL));
  OK(cdp_copy_close(&copy));
  CHECK(repaired(mirror, NULL) == BLOCK);
  OK(cdp_mirror_close(&mirror));
  file = fopen(moved, "rb");
  CHECK(file != NULL && fseek(file, BLOCK, SEEK_SET) == 0 && fread(back, 1, BLOCK, file) == BLOCK);
  CHECK(is_all(back, BLOCK, 6));
  fclose(file);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_mirror_open("/nowhere/at/all", NULL, &mirror));
}

int main(int argc, char **argv) {
  cdp_copy_calls calls;
  cdp_copy *copy = NULL;
  for (int at = 0; at < COPIES; at++) {
    pthread_mutex_init(&memory[at].lock, NULL);
    memory[at].bytes = DISK;
    memory[at].data = calloc(1, DISK);
    CHECK(memory[at].data != NULL);
  }
  /* What is required is looked for, and what was lent comes back at once. */
  calls = calls_of(0);
  calls.sync = NULL;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_copy_open_custom(&calls, &copy));
  CHECK(copy == NULL && memory[0].freed == 1 && strstr(cdp_last_error_message(), "sync") != NULL);
  memory[0].freed = 0;
  copies_of_the_host();
  copies_in_files(argc, argv);
  for (int at = 0; at < COPIES; at++) free(memory[at].data);
  return 0;
}
