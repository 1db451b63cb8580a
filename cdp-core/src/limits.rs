//! Every bound of the library, in one place. Each has a test at the bound and one past it.

/// Largest single write, bytes.
pub const WRITE_BYTES_MAX: u64 = 16 << 20;
/// Nominal size of a segment, bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Largest end of the frames of a segment, bytes: an index entry has 17 bits for a sector.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Largest offset of a structure in an extent, bytes.
pub const EXTENT_BYTES_MAX: u64 = 1 << 40;
/// Numbers that only grow (seqs, frames, extents, lineages, owner epochs, generations, manifest records) are below it, so that
/// the steps to come cannot overflow. Stored numbers beyond it are damage.
pub const COUNTER_END: u64 = 1 << 62;
/// Largest payload of a frame, bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Largest frame on disk, bytes: head, payload and tail.
pub const FRAME_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Most index entries that one segment may collect before it is sealed.
pub const SEGMENT_ENTRIES_MAX: usize = 256 << 10;
/// Most index entries that recovery takes from the frames of one segment: after a failure it may hold those of several.
pub const SEGMENT_ENTRIES_RECOVERED_MAX: usize = 4 * SEGMENT_ENTRIES_MAX;
/// Frames that may wait for their write and sync; beyond it, inline writes wait.
pub const FRAMES_IN_FLIGHT_MAX: usize = 48;
/// Buffers that a group keeps for the next reads and copies.
pub const TRANSFER_BUFFERS_KEPT: usize = 16;
/// Largest volume, bytes (64 PiB).
pub const VOLUME_BYTES_MAX: u64 = 1 << 56;
/// Most volumes in a store.
pub const VOLUMES_MAX: usize = 4096;
/// Times that a file transfer may come back with less than one unit of [`crate::io::IO_ALIGN`] before it fails.
pub const TRANSFER_STALLS_MAX: usize = 8;
/// Gaps kept of one volume; beyond it the two closest become one.
pub const GAPS_MAX: usize = 1024;
/// Events kept for a host that does not poll.
pub const EVENTS_MAX: usize = 1024;
/// Longest volume or bookmark name, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest application type of a bookmark, bytes.
pub const APP_TYPE_BYTES_MAX: usize = 128;
/// Longest comment of a bookmark, bytes.
pub const COMMENT_BYTES_MAX: usize = 4096;
/// Most stores that one bookmark is set across.
pub const ACROSS_STORES_MAX: usize = 64;
/// Longest retention policy, bytes of its canonical text.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Most windows of a retention policy.
pub const POLICY_WINDOWS_MAX: usize = 64;
/// Largest record of the manifest, bytes, padding included.
pub const MANIFEST_RECORD_BYTES_MAX: usize = 1 << 20;
/// Size of a manifest at which it is rolled over, bytes.
pub const MANIFEST_BYTES_ROLL: u64 = 8 << 20;
/// Bytes behind a bad record of the manifest in which an intact one is looked for.
pub const MANIFEST_TAIL_BYTES_MAX: u64 = 64 << 20;
/// Default budget of the cache of index pages, bytes.
pub const PAGE_CACHE_BYTES: u64 = 32 << 20;
/// Largest read in one call, bytes.
pub const READ_BYTES_MAX: u64 = 1 << 30;
/// Index runs of one level that are merged into one run of the next.
pub const RUN_FANOUT: usize = 8;
/// Largest piece of an index run, bytes.
pub const RUN_PIECE_BYTES_MAX: u64 = 64 << 20;
/// Age at which an open frame is committed, nanoseconds.
pub const FRAME_AGE_NS_MAX: u64 = 200_000_000;
/// Longest line of a trace, bytes, its end included.
pub const TRACE_LINE_BYTES_MAX: usize = 1024;
/// Most points that a retention policy keeps in one slot.
pub const POLICY_PER_SLOT_MAX: u32 = 1024;
/// Most application types that one bookmark filter of a retention policy names.
pub const POLICY_TYPES_MAX: usize = 64;
/// Frames of a capture pool, unless the host asks for another number.
pub const POOL_FRAMES: usize = 64;
/// Fewest frames of a capture pool: the newest stays in the chain until another follows it.
pub const POOL_FRAMES_MIN: usize = 2;
/// Most frames of a capture pool.
pub const POOL_FRAMES_MAX: usize = 4096;
/// Most writes in one frame of a capture pool.
pub const POOL_FRAME_SLOTS: u32 = 512;
/// Most runs of one dirty map that may be in resync at the same time.
pub const RESYNC_RUNS_MAX: usize = 256;
/// Longest name of a window in the outline of a timeline, bytes.
pub const OUTLINE_WINDOW_BYTES_MAX: usize = 64;
/// Longest reason for which a point is kept in the outline of a timeline, bytes.
pub const OUTLINE_WHY_BYTES_MAX: usize = 256;
/// Times that a plan of retention is made anew because a bookmark or snapshot came in between.
pub const RETENTION_REPLANS_MAX: usize = 64;
/// Smallest segment of a store without a bound by space that has its reserve, bytes: to begin one takes several syncs.
pub const SEGMENT_BYTES_USUAL_MIN: u64 = 16 << 20;
/// Smallest segment of a store with a bound by space or without its reserve, bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// Smallest segment that ends because of the time that it spans, bytes.
pub const SEGMENT_CUT_BYTES_MIN: u64 = 256 << 10;
/// Smallest segment that is made where there is no room for more, bytes.
pub const SEGMENT_BYTES_LEAST: u64 = 1 << 20;
/// Smallest reserve, bytes.
pub const RESERVE_BYTES_MIN: u64 = 512 << 10;
/// Times that a write is tried again after room was made for it.
pub const MAKE_ROOM_MAX: usize = 4;
/// Most ranges that a host may mark in one call, or give when a tap begins.
pub const RANGES_MAX: usize = 1 << 20;
/// Writes of one tap between [`Tap::capture_begin`](crate::Tap::capture_begin) and their end that are told apart; beyond it they are marked.
pub const IN_FLIGHT_MAX: usize = 1024;
/// Most copies of a mirror set.
pub const MIRROR_COPIES_MAX: usize = 8;
/// Older generations kept of a copy.
pub const GENERATIONS_MAX: usize = 8;
/// Blocks whose digests are kept to recognise the content of a copy.
pub const SAMPLE_BLOCKS_MAX: usize = 32;
/// Longest locator of a copy, bytes.
pub const LOCATOR_BYTES_MAX: usize = 4096;
/// Most differing extents that a verification of a mirror set lists.
pub const VERIFY_EXTENTS_MAX: usize = 1 << 16;
/// Times that a volume is resized at most: each leaves a size that belongs to its points.
pub const VOLUME_RESIZES_MAX: usize = 1024;
/// Most bytes of a disk that one request for digests, or for several ranges at once, covers across a link.
pub const DIGEST_REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Most bytes of data in one batch of a seed set.
pub const SEED_BATCH_BYTES_MAX: usize = 1 << 20;
/// Most extents in one batch of a seed set.
pub const SEED_BATCH_EXTENTS_MAX: usize = 4096;
/// Smallest bound that can be set for a data file of a seed set, bytes: two of the largest batches.
pub const SEED_FILE_BYTES_MIN: u64 = 4 << 20;
/// Largest bound that can be set for a data file of a seed set, bytes.
pub const SEED_FILE_BYTES_MAX: u64 = 1 << 39;
/// Most data files of a seed set.
pub const SEED_FILES_MAX: usize = 1 << 16;
