//! Makes a golden store: a small store of the format version in force, and what it must give back.
//!
//! The expectation is written from a model in memory, not from the store, so a defect of today is not taken for the truth of
//! tomorrow. Times, content and sizes are fixed; only the random identities of the store differ from one making to the next.

use cdp_core::{
    Bookmark, BookmarkKind, CreateOptions, ImportSource, NewBookmark, OpenOptions, Point, Stepped, Store,
    format::{FORMAT_VERSION, digest::DigestKey},
    io::{DirectoryOptions, DirectoryStorage, ManualClock, Storage},
    retention::Policy,
    units::{ExtentId, Seq, TimeNs},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where golden stores are kept.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// How each store of a format version is made.
type Make = fn(&Path) -> Value;

/// The stores of the format version in force.
fn makers() -> [(String, Make); 3] {
    [
        (format!("v{FORMAT_VERSION}"), make_clean),
        (format!("v{FORMAT_VERSION}-unclean"), make_unclean),
        (format!("v{FORMAT_VERSION}-thinned"), make_thinned),
    ]
}

/// The first moment of golden time: 2026-01-01T00:00:00Z and a bit.
const START: TimeNs = TimeNs::new(1_767_225_600_000_000_123);
const HOUR: u64 = 3_600_000_000_000;
const DISK_BYTES: u64 = 256 << 10;
/// Not a multiple of a block, and more than a frame can hold.
const WIDE_BYTES: u64 = (2 << 20) + 512;
const SEED_BYTES: u64 = 96 << 10;
/// Segments that many frames of a few writes fit.
const SEGMENT_BYTES: u64 = 4 << 20;
/// The smallest segments: what a crash leaves unsealed stays small.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The digest of an image as it stands in an expectation.
pub fn digest_of(image: &[u8]) -> String {
    format!("{:016x}", DigestKey(0).digest(image))
}

/// How a golden store is opened; the clock stands still.
pub fn options(segment_bytes: u64, clock: &Arc<ManualClock>) -> OpenOptions {
    OpenOptions { clock: clock.clone(), segment_bytes, run_fanout: 2, ..OpenOptions::default() }
}

/// Pseudo-random numbers that are the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len / 8).flat_map(|_| (self.below(1 << 31) << 31 | self.below(1 << 31)).to_le_bytes()).collect()
    }
}

struct Image {
    exists_from: u64,
    now: Vec<u8>,
    /// Digest after each seq from `exists_from` on.
    digests: Vec<String>,
}

/// A store under construction and the model of it.
struct Maker {
    path: PathBuf,
    store: Option<Store>,
    clock: Arc<ManualClock>,
    random: Random,
    images: BTreeMap<&'static str, Image>,
    times: Vec<TimeNs>,
    now: TimeNs,
    bookmarks: Vec<Bookmark>,
    /// The points that a policy has left; `None` when there is every one.
    kept: Option<BTreeSet<u64>>,
}

impl Maker {
    fn new(path: &Path) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let storage = DirectoryStorage::create(path, DirectoryOptions::default())
            .expect("a golden store is made where there is none: it is never overwritten");
        let create = CreateOptions { volume: "disk".into(), bytes: DISK_BYTES };
        let store = Store::create(Arc::new(storage), &create, options(SEGMENT_BYTES, &clock)).unwrap();
        let mut maker = Self {
            path: path.to_owned(),
            store: Some(store),
            clock,
            random: Random(20_260_101),
            images: BTreeMap::new(),
            times: vec![TimeNs::ZERO],
            now: START,
            bookmarks: Vec::new(),
            kept: None,
        };
        maker.add_image("disk", 0, DISK_BYTES);
        maker
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn seq(&self) -> u64 {
        self.times.len() as u64 - 1
    }

    fn add_image(&mut self, name: &'static str, exists_from: u64, bytes: u64) {
        let now = vec![0; usize::try_from(bytes).unwrap()];
        let digests = vec![digest_of(&now)];
        self.images.insert(name, Image { exists_from, now, digests });
    }

    /// Time goes on by an odd number of nanoseconds, and sometimes not at all.
    fn tick(&mut self) -> TimeNs {
        if !self.times.len().is_multiple_of(5) {
            self.now = TimeNs::new(self.now.get() + 1_000_000_007 * (1 + self.random.below(50)));
        }
        self.clock.set(self.now);
        self.now
    }

    /// Notes a seq: what it did to one volume, and the state of all.
    fn note(&mut self, seq: Seq, time: TimeNs, name: &str, change: impl FnOnce(&mut [u8])) {
        self.times.push(time);
        assert_eq!(seq.get(), self.seq());
        if let Some(image) = self.images.get_mut(name) {
            change(&mut image.now);
        }
        for image in self.images.values_mut() {
            image.digests.push(digest_of(&image.now));
        }
    }

    fn write(&mut self, name: &str, offset: u64, data: &[u8]) {
        let time = self.tick();
        let seq = self.store().volume(Some(name)).unwrap().write_at_time(offset, data, time).unwrap();
        self.note(seq, time, name, |image| {
            let from = usize::try_from(offset).unwrap();
            image[from..from + data.len()].copy_from_slice(data);
        });
    }

    fn clear(&mut self, name: &str, offset: u64, length: u64, discard: bool) {
        let time = self.tick();
        let volume = self.store().volume(Some(name)).unwrap();
        let seq = if discard {
            volume.discard(offset, length, Some(time)).unwrap()
        } else {
            volume.write_zeroes(offset, length, Some(time)).unwrap()
        };
        self.note(seq, time, name, |image| {
            image[usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()].fill(0);
        });
    }

    /// Writes of 512 bytes to a few blocks, at any sector.
    fn write_some(&mut self, name: &'static str, count: u64) {
        for _ in 0..count {
            let sectors = 1 + self.random.below(10);
            let bytes = self.images[name].now.len() as u64;
            let offset = self.random.below(bytes / 512 - sectors + 1) * 512;
            let data = self.random.bytes(sectors * 512);
            self.write(name, offset, &data);
        }
    }

    /// One write of three frames, nearly all of it zeroes.
    fn write_wide(&mut self) {
        let mut data = vec![0; 2 << 20];
        for at in [0, 700 << 10, 1300 << 10, (2 << 20) - 4096] {
            data[at..at + 2048].copy_from_slice(&self.random.bytes(2048));
        }
        self.write("wide", 512, &data);
    }

    /// So many hours after the beginning.
    fn at_hour(&mut self, hour: u64) {
        self.now = TimeNs::new(START.get() + hour * HOUR);
    }

    fn resize(&mut self, name: &str, bytes: u64) {
        let at = self.store().resize_volume(name, bytes).unwrap().unwrap();
        self.note(at.seq, at.time, name, |_| {});
        let image = self.images.get_mut(name).unwrap();
        image.now.resize(usize::try_from(bytes).unwrap(), 0);
        *image.digests.last_mut().unwrap() = digest_of(&image.now);
    }

    fn bookmark(&mut self, new: NewBookmark) {
        self.tick();
        let made = self.store().add_bookmark(&new).unwrap();
        self.bookmarks.push(made);
    }

    fn import(&mut self) {
        let time = self.tick();
        let mut source = Pieces(vec![(8192, self.random.bytes(4096)), (40960, self.random.bytes(6144))]);
        let pieces = source.0.clone();
        let store = self.store().clone();
        store.import_volume("seeded", SEED_BYTES, &mut source, Some(time), &mut |_| {}).unwrap();
        let seq = Seq::new(self.seq() + 1);
        self.add_image("seeded", seq.get(), SEED_BYTES);
        let image = self.images.get_mut("seeded").unwrap();
        image.digests.clear();
        self.note(seq, time, "seeded", |image| {
            for (offset, data) in pieces {
                let from = usize::try_from(offset).unwrap();
                image[from..from + data.len()].copy_from_slice(&data);
            }
        });
    }

    fn drain(&self) {
        while self.store().step(Default::default()).unwrap() == Stepped::More {}
    }

    /// Ends the owner in good order and starts the next.
    fn reopen(&mut self, segment_bytes: u64) {
        self.drain();
        self.store.take().unwrap().close().unwrap();
        let storage = DirectoryStorage::open(&self.path, DirectoryOptions::default()).unwrap();
        self.store = Some(Store::open(Arc::new(storage), options(segment_bytes, &self.clock)).unwrap());
    }

    fn expectation(&self, clean: bool) -> Value {
        let volumes: Vec<Value> = self
            .images
            .iter()
            .map(|(name, image)| {
                json!({ "name": name, "bytes": image.now.len(), "exists_from": image.exists_from, "digests": image.digests })
            })
            .collect();
        let bookmarks: Vec<Value> = self.bookmarks.iter().map(bookmark_value).collect();
        let times: Vec<u64> = self.times.iter().map(|time| time.get()).collect();
        json!({
            "format_version": FORMAT_VERSION, "clean": clean, "tail_frames": u64::from(!clean), "newest": self.seq(),
            "times": times, "volumes": volumes, "bookmarks": bookmarks, "policy": self.store().policy().unwrap().to_json(),
            "kept": self.kept,
        })
    }
}

/// A bookmark as it stands in an expectation.
pub fn bookmark_value(bookmark: &Bookmark) -> Value {
    json!({
        "name": bookmark.name, "kind": bookmark.kind.as_str(), "app": bookmark.app, "comment": bookmark.comment,
        "seq": bookmark.seq.get(), "time": bookmark.time.get(), "locked": bookmark.locked,
        "expires": bookmark.expires.map(TimeNs::get),
    })
}

struct Pieces(Vec<(u64, Vec<u8>)>);

impl ImportSource for Pieces {
    fn next(&mut self, buf: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (offset, data) = self.0.remove(0);
        buf[..data.len()].copy_from_slice(&data);
        Ok(Some((offset, data.len())))
    }
}

/// Several owners, each of which seals its segment; runs are merged; closed in good order.
fn make_clean(path: &Path) -> Value {
    let mut maker = Maker::new(path);
    maker.write_some("disk", 6);
    maker.store().set_policy(&policy()).unwrap();
    maker.bookmark(NewBookmark::named("first"));
    maker.store().add_volume("wide", WIDE_BYTES).unwrap();
    let from = maker.seq();
    maker.add_image("wide", from, WIDE_BYTES);
    maker.write_some("disk", 3);
    maker.reopen(SEGMENT_BYTES);
    maker.write_wide();
    maker.write_some("wide", 2);
    maker.bookmark(NewBookmark {
        kind: BookmarkKind::Application,
        app: Some("postgresql".into()),
        comment: Some("before the upgrade \u{2013} all of it".into()),
        locked: true,
        expires: Some(TimeNs::new(START.get() + 86_400_000_000_000)),
        ..NewBookmark::named("app-1")
    });
    maker.clear("disk", 4096 + 512, 9 * 4096, false);
    maker.write_some("disk", 4);
    maker.reopen(SEGMENT_BYTES);
    maker.import();
    maker.write_some("seeded", 3);
    maker.clear("disk", 0, DISK_BYTES, true);
    maker.bookmark(NewBookmark { kind: BookmarkKind::FileSystem, ..NewBookmark::named("after-discard") });
    maker.bookmark(NewBookmark { at: Some(Point::Seq(Seq::new(4))), ..NewBookmark::named("back-then") });
    maker.bookmark(NewBookmark::named("gone"));
    maker.store().delete_bookmark("gone").unwrap();
    maker.bookmarks.pop();
    maker.reopen(SEGMENT_BYTES);
    maker.write_some("disk", 3);
    maker.clear("wide", 1 << 20, (1 << 20) + 512, true);
    maker.reopen(SEGMENT_BYTES);
    maker.write_some("wide", 2);
    maker.reopen(SEGMENT_BYTES);
    let expectation = maker.expectation(true);
    maker.store.take().unwrap().close().unwrap();
    expectation
}

/// What a crash leaves: one sealed segment, unsealed ones with a write of several frames, and a torn last frame.
fn make_unclean(path: &Path) -> Value {
    let mut maker = Maker::new(path);
    maker.write_some("disk", 5);
    maker.store().add_volume("wide", WIDE_BYTES).unwrap();
    let from = maker.seq();
    maker.add_image("wide", from, WIDE_BYTES);
    maker.bookmark(NewBookmark::named("sealed"));
    maker.reopen(SEGMENT_BYTES_MIN);
    maker.clear("disk", 8192, 16384, false);
    maker.bookmark(NewBookmark { kind: BookmarkKind::Application, ..NewBookmark::named("unsealed") });
    maker.write_wide();
    maker.store().flush().unwrap();
    let expectation = maker.expectation(false);
    // One write more, of which the crash leaves the first half.
    let data = maker.random.bytes(8192);
    let time = maker.tick();
    maker.store().volume(None).unwrap().write_at_time(0, &data, time).unwrap();
    maker.store().flush().unwrap();
    drop(maker);
    let storage = DirectoryStorage::open(path, DirectoryOptions::default()).unwrap();
    tear_last_frame(&storage, path);
    expectation
}

/// Zeroes the second half of the last frame, and cuts off the space behind the end of the manifest, which is all zeroes: as if
/// it had never become durable.
fn tear_last_frame(storage: &DirectoryStorage, path: &Path) {
    let last = storage
        .list()
        .unwrap()
        .into_iter()
        .rev()
        .find(|extent| fs::read(file_of(path, *extent)).unwrap().starts_with(b"CDPSEGMT"));
    let file = file_of(path, last.unwrap());
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let torn = (end / 4096) * 4096;
    bytes[torn..].fill(0);
    fs::write(&file, bytes).unwrap();
    for extent in storage.list().unwrap() {
        let file = file_of(path, extent);
        let mut bytes = fs::read(&file).unwrap();
        if bytes.starts_with(b"CDPMANIF") {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes.truncate((end / 4096 + 1) * 4096);
            fs::write(&file, bytes).unwrap();
        }
    }
}

fn file_of(path: &Path, extent: ExtentId) -> PathBuf {
    path.join(format!("{:016x}.cdp", extent.get()))
}

fn policy() -> Policy {
    Policy::from_toml(
        "[[window]]\nto = \"24h\"\nkeep = \"all\"\n\n[[window]]\nto = \"48h\"\nkeep = { every = \"4h\" }\nbookmarks = \"all\"\n",
    )
    .unwrap()
}

/// Sixty-four hours under a policy, with several owners, and a run that moves what is left out of what goes. The volume has had three sizes.
fn make_thinned(path: &Path) -> Value {
    const HOURS: u64 = 64;
    let mut maker = Maker::new(path);
    maker.store().set_policy(&sparse_policy()).unwrap();
    let (mut hours, mut marked) = (BTreeMap::new(), BTreeSet::new());
    for hour in 0..HOURS {
        maker.at_hour(hour);
        maker.write_some("disk", 3);
        match hour {
            7 => maker.bookmark(NewBookmark { locked: true, ..NewBookmark::named("locked") }),
            // Older than the windows reach: it goes.
            9 => maker.bookmark(NewBookmark::named("old")),
            25 => maker.bookmark(NewBookmark::named("user")),
            29 => maker.bookmark(NewBookmark {
                kind: BookmarkKind::Application,
                app: Some("postgresql".into()),
                ..NewBookmark::named("app")
            }),
            13 => maker.resize("disk", DISK_BYTES / 2),
            33 => maker.resize("disk", DISK_BYTES + 8192),
            20 | 45 => maker.reopen(SEGMENT_BYTES),
            _ => {}
        }
        if [7, 25, 29].contains(&hour) {
            marked.insert(maker.seq());
        }
        maker.write_some("disk", 1);
        hours.insert(hour, maker.seq());
    }
    maker.at_hour(HOURS);
    maker.clock.set(maker.now);
    let report = maker.store().run_retention(maker.now).unwrap();
    assert!(report.bytes_freed > 100 << 10, "nothing was moved: {report:?}");
    // All from the last state before the last day on, the last state of each slot of the day before, unless an application
    // bookmark stands for it, and what bookmarks name.
    let full_from = hours[&39];
    let slots = [19, 23, 27, 35, 39].map(|hour| hours[&hour]);
    maker.kept = Some(slots.into_iter().chain(marked).chain(full_from..=maker.seq()).collect());
    maker.bookmarks.retain(|bookmark| bookmark.name != "old");
    maker.reopen(SEGMENT_BYTES);
    let expectation = maker.expectation(true);
    maker.store.take().unwrap().close().unwrap();
    expectation
}

fn sparse_policy() -> Policy {
    Policy::from_toml(
        "[[window]]\nto = \"24h\"\nkeep = \"all\"\n\n[[window]]\nto = \"48h\"\n\
         keep = { every = \"4h\", prefer = [\"app\"] }\nbookmarks = \"all\"\n",
    )
    .unwrap()
}

/// Makes the golden stores of the format version in force under `directory`, those that are not there yet.
pub fn make(directory: &Path) {
    for (name, maker) in makers() {
        let path = directory.join(&name);
        if path.exists() {
            // A golden store is never overwritten.
            continue;
        }
        fs::create_dir(&path).unwrap();
        let expectation = maker(&path.join("store"));
        fs::write(path.join("expected.json"), serde_json::to_string_pretty(&expectation).unwrap() + "\n")
            .unwrap();
    }
}
