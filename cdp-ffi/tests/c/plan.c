/* What retention would keep and drop, and why; how large a history will be; zeroes and discards with times of the host; what was set and is asked for. */
#include "check.h"

enum { DISK = 1 << 20 };

static const uint64_t START = 1800000000ULL * 1000000000, MINUTE = 60ULL * 1000000000;
static const char POLICY[] =
    "[[window]]\nto = \"1h\"\nkeep = \"all\"\n"
    "[[window]]\nto = \"4h\"\nkeep = { every = \"1h\", per_slot = 1 }\nbookmarks = \"all\"\n"
    "[[window]]\nto = \"8h\"\nkeep = \"none\"\nbookmarks = { names = \"keep-*\" }\n";

static uint64_t now;
static uint64_t now_ns(void *userdata) {
  (void)userdata;
  return now;
}

static cdp_store *store_with_clock(void) {
  cdp_store *store = NULL;
  cdp_storage *memory = NULL;
  cdp_clock clock;
  cdp_open_options open;
  cdp_create_options create;
  CDP_INIT(clock);
  CDP_INIT(open);
  CDP_INIT(create);
  clock.now_ns = now_ns;
  OK(cdp_storage_open_memory(0, &memory));
  open.storage = memory;
  open.clock = &clock;
  create.bytes = DISK;
  create.open = &open;
  OK(cdp_store_create(NULL, &create, &store));
  OK(cdp_storage_close(&memory));
  return store;
}

static void bookmark(cdp_store *store, const char *name, uint32_t flags, uint64_t expires_ns) {
  cdp_bookmark_options options;
  CDP_INIT(options);
  options.flags = flags;
  options.expires_ns = expires_ns;
  OK(cdp_bookmark_create(store, name, &options, NULL, NULL));
}

static uint32_t drop_of(const cdp_retention_plan *plan, const char *name, uint32_t *window) {
  cdp_retention_drop drop;
  CDP_INIT(drop);
  for (size_t at = 0; cdp_retention_plan_drop_at(plan, at, &drop) == CDP_OK; at++)
    if (strcmp(drop.name, name) == 0) {
      *window = drop.window;
      return drop.why;
    }
  return 0;
}

/* A write every ten minutes for ten hours, with bookmarks that each go or stay for another reason. */
static void plans(void) {
  static unsigned char block[BLOCK];
  cdp_store *store = store_with_clock();
  cdp_volume *volume = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_retention_plan *plan = NULL, *gone;
  cdp_retention_plan_info info;
  cdp_retention_point point;
  cdp_retention_drop drop;
  cdp_retention_report report;
  uint64_t seq = 0, pinned = 0, before = 0, count;
  uint32_t window = 77, seen[7] = {0};
  CDP_INIT(info);
  CDP_INIT(point);
  CDP_INIT(drop);
  CDP_INIT(report);
  OK(cdp_volume_open(store, NULL, &volume));
  for (int round = 0; round < 60; round++) {
    now = START + (uint64_t)round * 10 * MINUTE;
    fill(block, BLOCK, round + 1);
    OK(cdp_volume_write(volume, 0, block, BLOCK, CDP_WRITE_FUA, &seq));
    if (round == 2) bookmark(store, "old", 0, 0);
    if (round == 3) bookmark(store, "locked", CDP_BOOKMARK_LOCKED, 0);
    if (round == 15) pinned = seq;
    if (round == 20) bookmark(store, "keep-it", 0, 0);
    if (round == 22) bookmark(store, "drop-it", 0, 0);
    if (round == 30) bookmark(store, "expires", 0, now + MINUTE);
  }
  now = START + 600 * MINUTE;
  OK(cdp_snapshot_open(volume, pinned, 0, &snapshot));
  OK(cdp_retention_plan_open(store, 0, POLICY, &plan));
  OK(cdp_retention_plan_info_get(plan, &info));
  CHECK(info.now_ns == now && info.full_from.time_ns <= now - 60 * MINUTE && info.next_due_ns > now);
  CHECK(info.bookmarks_kept == 2 && info.bookmarks_dropped == 3 && info.points >= 4);
  for (count = 0; cdp_retention_plan_point_at(plan, count, &point) == CDP_OK; count++) {
    CHECK(point.point.seq > before && point.point.seq < info.full_from.seq && point.until_ns > point.point.time_ns);
    CHECK(point.why >= CDP_KEPT_SLOT_LAST && point.why <= CDP_KEPT_PIN);
    before = point.point.seq;
    seen[point.why]++;
    if (point.why == CDP_KEPT_SLOT_LAST) CHECK(point.window == 1 && strcmp(point.window_name, "1h-4h") == 0);
    if (point.why == CDP_KEPT_BOOKMARK) CHECK(strcmp(point.name, "keep-it") == 0 && point.window == 2);
    if (point.why == CDP_KEPT_LOCKED_BOOKMARK) CHECK(strcmp(point.name, "locked") == 0 && point.window == UINT32_MAX);
    if (point.why == CDP_KEPT_PIN) CHECK(point.point.seq == pinned && point.name[0] != 0);
  }
  CHECK(count == info.points && seen[CDP_KEPT_SLOT_LAST] >= 2 && seen[CDP_KEPT_BOOKMARK] == 1);
  CHECK(seen[CDP_KEPT_LOCKED_BOOKMARK] == 1 && seen[CDP_KEPT_PIN] == 1);
  CHECK(drop_of(plan, "old", &window) == CDP_DROP_AGE && window == UINT32_MAX);
  CHECK(drop_of(plan, "expires", &window) == CDP_DROP_EXPIRED && window == UINT32_MAX);
  CHECK(drop_of(plan, "drop-it", &window) == CDP_DROP_WINDOW && window == 2);
  EXPECT(CDP_END, cdp_retention_plan_drop_at(plan, 3, &drop));
  EXPECT(CDP_END, cdp_retention_plan_point_at(plan, SIZE_MAX, &point));
  /* The run does what the plan says, and the plan stays as it was made. */
  OK(cdp_retention_set(store, POLICY));
  OK(cdp_retention_run(store, 0, &report));
  CHECK(report.expiring_bookmarks == 3 && report.horizon.seq == info.full_from.seq);
  OK(cdp_retention_plan_info_get(plan, &info));
  CHECK(info.bookmarks_dropped == 3);
  gone = plan;
  OK(cdp_retention_plan_close(&plan));
  OK(cdp_retention_plan_close(&plan));
  EXPECT(CDP_ERR_CLOSED, cdp_retention_plan_info_get(gone, &info));
  OK(cdp_retention_plan_open(store, now, NULL, &plan));
  OK(cdp_retention_plan_info_get(plan, &info));
  CHECK(info.points == count && info.bookmarks_dropped == 0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_retention_plan_open(store, 0, "to = \"1h\"", &gone));
  CHECK(gone == NULL);
  OK(cdp_store_close(&store));
  EXPECT(CDP_ERR_CLOSED, cdp_retention_plan_info_get(plan, &info));
  EXPECT(CDP_ERR_CLOSED, cdp_retention_plan_close(&plan));
}

static uint64_t sum_of(const cdp_history_size *size, size_t tiers) {
  cdp_tier_size tier;
  uint64_t sum = 0, bytes = 77;
  size_t count = 0, len = 0, texts = 0;
  char text[1024];
  CDP_INIT(tier);
  while (cdp_history_size_tier_at(size, count, &tier) == CDP_OK) {
    if (count == 0) CHECK(strcmp(tier.name, "newest") == 0 && tier.points == 1);
    if (count == 1) CHECK(strcmp(tier.name, "all") == 0);
    CHECK(tier.data_bytes == tier.versions * BLOCK && tier.index_bytes <= tier.data_bytes);
    sum += tier.data_bytes + tier.index_bytes;
    count++;
  }
  CHECK(count == tiers);
  EXPECT(CDP_ERR_BUFFER_TOO_SMALL, cdp_history_size_assumption_at(size, 0, NULL, 0, &len));
  CHECK(len > 0 && len < sizeof text);
  while (cdp_history_size_assumption_at(size, texts, text, sizeof text, &len) == CDP_OK) texts++;
  CHECK(texts >= 3);
  len = 77;
  EXPECT(CDP_END, cdp_history_size_assumption_at(size, texts, NULL, 0, &len));
  CHECK(len == 77);
  OK(cdp_history_size_bytes(size, &bytes));
  CHECK(bytes == sum);
  return sum;
}

static void sizes(const char *path, const char *missing, const char *directory) {
  cdp_history_size *size = NULL, *gone;
  cdp_tier_size tier;
  FILE *file;
  uint64_t bytes;
  CDP_INIT(tier);
  OK(cdp_size_of_rate(POLICY, 1ULL << 34, 1ULL << 30, &size));
  CHECK(sum_of(size, 4) > 1 << 30);
  gone = size;
  OK(cdp_history_size_close(&size));
  OK(cdp_history_size_close(&size));
  EXPECT(CDP_ERR_CLOSED, cdp_history_size_bytes(gone, &bytes));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_rate("{}", 1, 1 << 20, &size));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_rate(POLICY, 1, 100, &size));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_rate(NULL, 1, 1 << 20, &size));

  file = fopen(path, "w");
  CHECK(file != NULL);
  for (int line = 0; line < 100; line++)
    fprintf(file, "%llu,disk,%d,4096\n", (unsigned long long)(START + (uint64_t)line * 10 * MINUTE), line % 4 * BLOCK);
  CHECK(fclose(file) == 0);
  OK(cdp_size_of_trace(POLICY, path, CDP_TRACE_CSV, &size));
  CHECK(sum_of(size, 4) < 100 * (BLOCK + 24));
  OK(cdp_history_size_tier_at(size, 0, &tier));
  CHECK(tier.versions == 4);
  OK(cdp_history_size_close(&size));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_trace(POLICY, path, CDP_TRACE_MSR, &size));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_trace(POLICY, path, 7, &size));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_trace(POLICY, directory, CDP_TRACE_CSV, &size));
  EXPECT(CDP_ERR_NOT_FOUND, cdp_size_of_trace(POLICY, missing, CDP_TRACE_CSV, &size));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_size_of_trace(POLICY, NULL, CDP_TRACE_CSV, &size));
  CHECK(size == NULL);
}

static void dated(cdp_store *store) {
  static unsigned char block[BLOCK], found[BLOCK];
  cdp_volume *volume = NULL;
  cdp_snapshot *snapshot = NULL;
  cdp_point newest, point;
  uint64_t seq = 77;
  fill(block, BLOCK, 9);
  OK(cdp_volume_open(store, NULL, &volume));
  OK(cdp_volume_write(volume, 0, block, BLOCK, 0, NULL));
  OK(cdp_volume_write(volume, BLOCK, block, BLOCK, 0, NULL));
  OK(cdp_resolve(store, "latest", &newest));
  EXPECT(CDP_ERR_TIME_BACKWARDS, cdp_volume_write_zeroes_at_time(volume, 0, BLOCK, 0, newest.time_ns - 1, &seq));
  EXPECT(CDP_ERR_UNALIGNED, cdp_volume_write_zeroes_at_time(volume, 1, BLOCK, 0, newest.time_ns + 5, &seq));
  EXPECT(CDP_ERR_OUT_OF_RANGE, cdp_volume_discard_at_time(volume, 0, 2 * DISK, 0, newest.time_ns + 5, &seq));
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_volume_discard_at_time(volume, 0, BLOCK, 1u << 7, newest.time_ns + 5, &seq));
  CHECK(seq == 77);
  OK(cdp_volume_write_zeroes_at_time(volume, 0, BLOCK, CDP_WRITE_FUA, newest.time_ns + 1000, &seq));
  CHECK(seq == newest.seq + 1);
  OK(cdp_volume_discard_at_time(volume, BLOCK, BLOCK, 0, newest.time_ns + 2000, &seq));
  OK(cdp_store_flush(store, NULL));
  OK(cdp_resolve_time(store, newest.time_ns + 1999, &point));
  CHECK(point.seq == newest.seq + 1 && point.time_ns == newest.time_ns + 1000);
  OK(cdp_snapshot_open(volume, point.seq, 0, &snapshot));
  OK(cdp_snapshot_read(snapshot, 0, found, BLOCK));
  CHECK(is_all(found, BLOCK, 0));
  OK(cdp_snapshot_read(snapshot, BLOCK, found, BLOCK));
  CHECK(is_all(found, BLOCK, 9));
  OK(cdp_volume_read(volume, BLOCK, found, BLOCK));
  CHECK(is_all(found, BLOCK, 0));
}

static int32_t freeze(void *userdata) {
  (void)userdata;
  return 0;
}
static void thaw(void *userdata) { (void)userdata; }

static void what_was_set(cdp_store *store) {
  cdp_bookmark_schedule schedule;
  cdp_bookmark_schedule_info info;
  cdp_quiesce quiesce;
  uint32_t mode = 77;
  uint64_t interval = 77;
  CDP_INIT(schedule);
  CDP_INIT(info);
  CDP_INIT(quiesce);
  OK(cdp_store_coalescing_get(store, &mode, &interval));
  CHECK(mode == CDP_COALESCE_NONE && interval == 0);
  OK(cdp_store_set_coalescing(store, CDP_COALESCE_INTERVAL, 5000000));
  OK(cdp_store_coalescing_get(store, &mode, &interval));
  CHECK(mode == CDP_COALESCE_INTERVAL && interval == 5000000);
  OK(cdp_store_set_coalescing(store, CDP_COALESCE_BARRIER, 0));
  OK(cdp_store_coalescing_get(store, &mode, NULL));
  CHECK(mode == CDP_COALESCE_BARRIER);
  OK(cdp_store_coalescing_get(store, NULL, NULL));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_store_coalescing_get(NULL, &mode, &interval));

  EXPECT(CDP_END, cdp_bookmark_schedule_get(store, &info));
  CHECK(info.every_ns == 0);
  quiesce.freeze = freeze;
  quiesce.thaw = thaw;
  quiesce.timeout_ns = 3000;
  schedule.kind = CDP_BOOKMARK_APP;
  schedule.every_ns = MINUTE;
  schedule.keep_for_ns = 60 * MINUTE;
  schedule.prefix = "often-";
  schedule.app = "database";
  schedule.quiesce = &quiesce;
  OK(cdp_bookmark_schedule_set(store, &schedule));
  OK(cdp_bookmark_schedule_get(store, &info));
  CHECK(info.flags == CDP_SCHEDULE_QUIESCES && info.kind == CDP_BOOKMARK_APP && info.every_ns == MINUTE);
  CHECK(info.keep_for_ns == 60 * MINUTE && info.timeout_ns == 3000);
  CHECK(strcmp(info.prefix, "often-") == 0 && strcmp(info.app, "database") == 0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_schedule_get(store, NULL));
  OK(cdp_bookmark_schedule_set(store, NULL));
  EXPECT(CDP_END, cdp_bookmark_schedule_get(store, &info));
}

int main(int argc, char **argv) {
  char path[512], missing[512];
  cdp_store *store;
  in_directory(path, sizeof path, argc, argv, "trace");
  in_directory(missing, sizeof missing, argc, argv, "missing");
  plans();
  sizes(path, missing, argv[1]);
  store = new_store(NULL, DISK);
  dated(store);
  what_was_set(store);
  OK(cdp_store_close(&store));
  return 0;
}
