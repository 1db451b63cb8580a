/* Bookmarks while production is frozen, across stores, and by schedule. */
#include "check.h"

enum { DISK = 1 << 20 };

struct production {
  cdp_store *store;
  cdp_volume *volume;
  int freezes, thaws, refuse, freed;
};

/* The application writes its last block while it is being frozen: a callback of this kind may call the library. */
static int32_t freeze(void *userdata) {
  static unsigned char block[BLOCK];
  struct production *production = userdata;
  cdp_store *copy = production->store;
  production->freezes++;
  /* To end the store in here would wait for this very call. */
  if (cdp_store_close(&copy) != CDP_ERR_BUSY || copy == NULL) return -5;
  fill(block, BLOCK, 7);
  if (production->refuse) return -16;
  return cdp_volume_write(production->volume, 0, block, BLOCK, 0, NULL) == CDP_OK ? 0 : -5;
}
static void thaw(void *userdata) { ((struct production *)userdata)->thaws++; }
static void freed(void *userdata) { ((struct production *)userdata)->freed++; }

int main(int argc, char **argv) {
  char first_path[512], second_path[512];
  static unsigned char block[BLOCK];
  cdp_store *stores[2];
  struct production production = {NULL, NULL, 0, 0, 0, 0};
  cdp_quiesce quiesce;
  cdp_bookmark_info info;
  cdp_bookmark_schedule schedule;
  cdp_snapshot *snapshot = NULL;
  cdp_status statuses[2] = {-99, -99};
  cdp_point points[2];
  cdp_uuid id;
  uint32_t state = 99;
  uint64_t since;
  CDP_INIT(quiesce);
  CDP_INIT(info);
  CDP_INIT(schedule);
  stores[0] = new_store(in_directory(first_path, sizeof first_path, argc, argv, "first"), DISK);
  stores[1] = new_store(in_directory(second_path, sizeof second_path, argc, argv, "second"), DISK);
  OK(cdp_volume_open(stores[0], NULL, &production.volume));
  production.store = stores[0];
  quiesce.userdata = &production;
  quiesce.freeze = freeze;
  quiesce.thaw = thaw;
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create(stores[0], "frozen", NULL, &quiesce, &info));
  quiesce.timeout_ns = 5000000000u;
  OK(cdp_bookmark_create(stores[0], "frozen", NULL, &quiesce, &info));
  CHECK(production.freezes == 1 && production.thaws == 1);
  OK(cdp_snapshot_open(production.volume, info.point.seq, 0, &snapshot));
  OK(cdp_snapshot_read(snapshot, 0, block, BLOCK));
  CHECK(is_all(block, BLOCK, 7));
  production.refuse = 1;
  EXPECT(CDP_ERR_IO, cdp_bookmark_create(stores[0], "refused", NULL, &quiesce, NULL));
  CHECK(cdp_last_error_errno() == 16 && production.freezes == 2 && production.thaws == 2);
  EXPECT(CDP_ERR_NOT_FOUND, cdp_bookmark_find(stores[0], "refused", &info));
  production.refuse = 0;
  OK(cdp_bookmark_create_across(stores, 2, "both", NULL, &quiesce, statuses, points, &id));
  EXPECT(CDP_OK, statuses[0]);
  EXPECT(CDP_OK, statuses[1]);
  CHECK(points[0].time_ns == points[1].time_ns && production.thaws == 3);
  OK(cdp_bookmark_confirm_across(stores, 2, "both", id, &state));
  CHECK(state == CDP_ACROSS_COMPLETE);
  {
    cdp_point common[2];
    cdp_uuid found;
    OK(cdp_resolve_newest_common(stores, 2, common, &found));
    CHECK(memcmp(&found, &id, sizeof id) == 0);
    CHECK(common[0].seq == points[0].seq && common[1].seq == points[1].seq);
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_resolve_newest_common(stores, 2, NULL, NULL));
    EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_resolve_newest_common(stores, 0, common, NULL));
  }
  id.bytes[0] ^= 1;
  EXPECT(CDP_ERR_NOT_FOUND, cdp_bookmark_confirm_across(stores, 2, "both", id, &state));
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create_across(stores, 0, "none", NULL, NULL, statuses, NULL, NULL));
  cdp_store *second = stores[1];
  stores[1] = stores[0];
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_bookmark_create_across(stores, 2, "twice", NULL, NULL, statuses, NULL, NULL));
  /* By schedule: a bookmark appears by itself, with production frozen for it. */
  schedule.every_ns = 1000000;
  schedule.prefix = "often-";
  schedule.quiesce = &quiesce;
  schedule.free_userdata = freed;
  OK(cdp_bookmark_schedule_set(stores[0], &schedule));
  for (since = 0; production.freezes == 3 && since < 100000; since++) {
    cdp_status status;
    OK(cdp_volume_write(production.volume, BLOCK, block, BLOCK, 0, NULL));
    status = cdp_store_step(stores[0], 0);
    CHECK(status == CDP_OK || status == CDP_END);
  }
  CHECK(production.freezes > 3 && production.thaws == production.freezes && production.freed == 0);
  OK(cdp_resolve(stores[0], "bookmark-latest:user", &points[0]));
  OK(cdp_bookmark_schedule_set(stores[0], NULL));
  CHECK(production.freed == 1);
  OK(cdp_store_close(&stores[0]));
  OK(cdp_store_close(&second));
  return 0;
}
