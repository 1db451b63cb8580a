/* Submit and poll: carried out by threads of the host and by threads of the queue, with a bounded depth and one notice per row of answers. */
#include "check.h"

#include <pthread.h>

enum { DISK = 1 << 20, REQUESTS = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int notices, freed;

static void notify(void *userdata) {
  pthread_mutex_lock(&lock);
  ++*(int *)userdata;
  pthread_mutex_unlock(&lock);
}
static void freed_once(void *userdata) {
  (void)userdata;
  freed++;
}

static cdp_request request_of(uint32_t op, uint64_t tag, uint64_t offset, void *buf, uint64_t len) {
  cdp_request request;
  CDP_INIT(request);
  request.op = op;
  request.tag = tag;
  request.offset = offset;
  request.buf = buf;
  request.len = len;
  return request;
}

/* No thread: nothing happens until the host runs it. */
static void driven(cdp_volume *volume) {
  static unsigned char block[BLOCK];
  cdp_queue *queue = NULL;
  cdp_queue_options options;
  cdp_answer answers[8];
  cdp_request request = request_of(CDP_REQUEST_WRITE, 7, 0, block, BLOCK);
  size_t count = 9;
  CDP_INIT(options);
  options.depth = 2;
  OK(cdp_queue_open(volume, &options, &queue));
  fill(block, BLOCK, 3);
  EXPECT(CDP_END, cdp_queue_run(queue, 10));
  OK(cdp_queue_submit(queue, &request));
  request = request_of(CDP_REQUEST_WRITE, 8, 1, block, BLOCK);
  OK(cdp_queue_submit(queue, &request));
  EXPECT(CDP_ERR_BUSY, cdp_queue_submit(queue, &request));
  OK(cdp_queue_poll(queue, answers, 8, &count));
  CHECK(count == 0);
  EXPECT(CDP_END, cdp_queue_wait(queue, 1000));
  OK(cdp_queue_run(queue, 10));
  EXPECT(CDP_ERR_BUSY, cdp_queue_submit(queue, &request));
  OK(cdp_queue_wait(queue, UINT64_MAX));
  OK(cdp_queue_poll(queue, answers, 8, &count));
  CHECK(count == 2 && answers[0].tag == 7 && answers[0].status == CDP_OK && answers[0].seq > 0);
  CHECK(answers[1].tag == 8 && answers[1].status == CDP_ERR_UNALIGNED && answers[1].seq == 0);
  request = request_of(CDP_REQUEST_FLUSH, 9, 0, NULL, 0);
  OK(cdp_queue_submit(queue, &request));
  OK(cdp_queue_run(queue, 1));
  OK(cdp_queue_poll(queue, answers, 1, &count));
  CHECK(count == 1 && answers[0].tag == 9 && answers[0].seq >= 1);
  request = request_of(CDP_REQUEST_FLUSH, 9, 512, NULL, 0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_queue_submit(queue, &request));
  request = request_of(77, 9, 0, NULL, 0);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_queue_submit(queue, &request));
  request = request_of(CDP_REQUEST_READ, 9, 0, NULL, BLOCK);
  EXPECT(CDP_ERR_INVALID_ARGUMENT, cdp_queue_submit(queue, &request));
  request = request_of(CDP_REQUEST_READ, 9, 0, block, BLOCK);
  request.flags = CDP_WRITE_FUA;
  EXPECT(CDP_ERR_UNSUPPORTED, cdp_queue_submit(queue, &request));
  OK(cdp_queue_close(&queue));
}

static void collect(cdp_queue *queue, int wanted) {
  cdp_answer answers[5];
  size_t count;
  while (wanted > 0) {
    OK(cdp_queue_wait(queue, UINT64_MAX));
    OK(cdp_queue_poll(queue, answers, 5, &count));
    for (size_t at = 0; at < count; at++) EXPECT(CDP_OK, answers[at].status);
    wanted -= (int)count;
  }
  CHECK(wanted == 0);
}

static void threaded(cdp_volume *volume) {
  static unsigned char blocks[REQUESTS][BLOCK];
  cdp_queue *queue = NULL;
  cdp_queue_options options;
  cdp_request request;
  CDP_INIT(options);
  options.threads = 3;
  options.notify = notify;
  options.userdata = &notices;
  options.free_userdata = freed_once;
  OK(cdp_queue_open(volume, &options, &queue));
  for (int at = 0; at < REQUESTS; at++) {
    fill(blocks[at], BLOCK, at + 1);
    request = request_of(CDP_REQUEST_WRITE, (uint64_t)at, (uint64_t)at * BLOCK, blocks[at], BLOCK);
    request.flags = at == 0 ? CDP_WRITE_FUA : 0;
    OK(cdp_queue_submit(queue, &request));
  }
  collect(queue, REQUESTS);
  request = request_of(CDP_REQUEST_WRITE_ZEROES, 0, 0, NULL, BLOCK);
  OK(cdp_queue_submit(queue, &request));
  request = request_of(CDP_REQUEST_DISCARD, 0, BLOCK, NULL, BLOCK);
  OK(cdp_queue_submit(queue, &request));
  collect(queue, 2);
  for (int at = 0; at < REQUESTS; at++) {
    fill(blocks[at], BLOCK, 0xee);
    request = request_of(CDP_REQUEST_READ, 0, (uint64_t)at * BLOCK, blocks[at], BLOCK);
    OK(cdp_queue_submit(queue, &request));
  }
  collect(queue, REQUESTS);
  for (int at = 0; at < REQUESTS; at++) CHECK(is_all(blocks[at], BLOCK, at < 2 ? 0 : at + 1));
  OK(cdp_queue_close(&queue));
  CHECK(notices > 0 && freed == 1);
}

/* A store that is closed takes its queues with it. */
static void *wait_for_ever(void *queue) {
  return cdp_queue_wait(queue, UINT64_MAX) == CDP_END ? queue : NULL;
}

int main(int argc, char **argv) {
  char path[512];
  cdp_store *store = new_store(in_directory(path, sizeof path, argc, argv, "store"), DISK);
  cdp_volume *volume = NULL;
  cdp_queue *queue = NULL;
  pthread_t thread;
  void *ended = NULL;
  OK(cdp_volume_open(store, NULL, &volume));
  driven(volume);
  threaded(volume);
  OK(cdp_queue_open(volume, NULL, &queue));
  CHECK(pthread_create(&thread, NULL, wait_for_ever, queue) == 0);
  OK(cdp_store_close(&store));
  CHECK(pthread_join(thread, &ended) == 0);
  EXPECT(CDP_ERR_CLOSED, cdp_queue_run(queue, 1));
  EXPECT(CDP_ERR_CLOSED, cdp_queue_close(&queue));
  CHECK(queue == NULL);
  return 0;
}
