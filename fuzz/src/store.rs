//! A whole store: a golden one with damage that the input chooses.
//!
//! Whatever the damage: no panic, no endless work, and every byte that is read is what was written, unless a checksum was forged.

use crate::mutate::{Files, load, mutate};
use cdp_core::{
    Error, OpenOptions, Point, Stepped, Store,
    io::{ManualClock, MemoryStorage, Storage},
    units::{ExtentId, Seq, TimeNs},
};
use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

/// What a store holds: the image of each volume at each seq from `from` on.
struct Truth {
    files: Files,
    newest: u64,
    volumes: Vec<(String, u64, Vec<Vec<u8>>)>,
}

/// Volumes longer than this are compared at their newest seq alone.
const SMALL_BYTES: u64 = 256 << 10;

fn options() -> OpenOptions {
    let clock = Arc::new(ManualClock::new(TimeNs::new(1_800_000_000_000_000_000)));
    OpenOptions {
        clock,
        segment_bytes: 64 << 10,
        run_fanout: 2,
        page_cache_bytes: 0,
        ..OpenOptions::default()
    }
}

fn truths() -> &'static [Truth] {
    static TRUTHS: OnceLock<Vec<Truth>> = OnceLock::new();
    TRUTHS.get_or_init(|| ["v1", "v1-unclean"].map(truth_of).into())
}

fn truth_of(name: &str) -> Truth {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../cdp-core/tests/golden").join(name).join("store");
    let mut files: Files = fs::read_dir(directory)
        .expect("the golden stores of cdp-core")
        .map(|entry| {
            let path = entry.expect("a readable directory").path();
            let digits = path.file_stem().and_then(|stem| stem.to_str()).expect("names of extents");
            let extent = u64::from_str_radix(digits, 16).expect("names of extents");
            (ExtentId::new(extent), fs::read(path).expect("a readable file"))
        })
        .collect();
    files.sort();
    let storage = Arc::new(MemoryStorage::new());
    load(&*storage, &files);
    let store = Store::open_read_only(storage, options()).expect("a golden store opens");
    let newest = store.newest().seq;
    let volumes = store.volumes().into_iter().map(|info| {
        let volume = store.volume(Some(&info.name)).expect("a volume of the list");
        let image = |seq| {
            let mut image = vec![0; usize::try_from(info.bytes).expect("small")];
            volume.snapshot(Seq::new(seq)).and_then(|snapshot| snapshot.read(0, &mut image)).expect("intact");
            image
        };
        let from = if info.bytes <= SMALL_BYTES { info.exists_from.get() } else { newest.get() };
        (info.name.clone(), from, (from..=newest.get()).map(image).collect())
    });
    Truth { newest: newest.get(), volumes: volumes.collect(), files }
}

/// The first byte chooses the store, the rest is the damage.
pub fn store(data: &[u8]) {
    let Some((choice, damage)) = data.split_first() else { return };
    let truth = &truths()[usize::from(*choice) % truths().len()];
    let mut files = truth.files.clone();
    let forged = mutate(&mut files, damage);
    let storage = Arc::new(MemoryStorage::new());
    load(&*storage, &files);
    if let Some(reader) = opened(Store::open_read_only(storage.clone(), options())) {
        compare(&reader, truth, forged);
        questions(&reader);
        let _ = reader.check(true, &mut |_| {});
    }
    if let Some(owner) = opened(Store::open(storage.clone(), options())) {
        own(owner, &storage, truth, forged);
    }
}

/// A store, unless it is refused for its damage.
fn opened(outcome: Result<Store, Error>) -> Option<Store> {
    match outcome {
        Ok(store) => Some(store),
        // Fenced: a forged copy of the superblock names a later owner.
        Err(
            Error::Damaged(_)
            | Error::Fenced
            | Error::NotFound { .. }
            | Error::UnsupportedFormat(_)
            | Error::InvalidArgument(_),
        ) => None,
        Err(error) => panic!("damage is reported as damage, not as: {error:?}"),
    }
}

/// Every read gives the right bytes or an error.
fn compare(store: &Store, truth: &Truth, forged: bool) {
    for (name, from, images) in &truth.volumes {
        let Ok(volume) = store.volume(Some(name)) else { continue };
        for (seq, image) in (*from..).zip(images) {
            let Ok(snapshot) = volume.snapshot(Seq::new(seq)) else { continue };
            let mut found = vec![0; image.len()];
            if snapshot.read(0, &mut found).is_ok() && !forged {
                assert!(found == *image, "volume {name} at seq {seq} has other bytes than were written");
            }
            let mut part = vec![0; 4096];
            if snapshot.read(8192, &mut part).is_ok() && !forged {
                assert!(
                    part == image[8192..12288],
                    "volume {name} at seq {seq} has other bytes than were written"
                );
            }
            let data = snapshot.next_data(0);
            if let (Ok(data), false) = (data, forged) {
                let first = image.iter().position(|byte| *byte != 0);
                assert!(
                    first.is_none_or(|first| data.is_some_and(|data| data <= first as u64)),
                    "data is not hidden"
                );
            }
        }
        let _ = volume.changed(Seq::ZERO, store.newest().seq).map(|extents| extents.take(1000).count());
    }
}

/// Everything else that can be asked; only panics count.
fn questions(store: &Store) {
    let _ = (store.timeline().is_ok(), store.stats().is_ok(), store.policy().is_ok(), store.bookmarks());
    for point in [Point::Latest, Point::Oldest, Point::Time(TimeNs::new(1_767_225_640_000_000_000))] {
        let _ = store.resolve(&point);
    }
    for bookmark in store.bookmarks() {
        let _ = store.resolve(&Point::Bookmark(bookmark.name));
    }
    for volume in store.volumes() {
        let Ok(handle) = store.volume(Some(&volume.name)) else { continue };
        let mut part = vec![0; 4096];
        let _ = volume.bytes.checked_sub(4096).map(|last| handle.read(last / 512 * 512, &mut part));
    }
}

/// An owner writes on: what it wrote is there in the end, and what was there is not worse.
fn own(owner: Store, storage: &Arc<MemoryStorage>, truth: &Truth, forged: bool) {
    compare(&owner, truth, forged);
    questions(&owner);
    let before = owner.newest().seq;
    let written = owner.volume(None).and_then(|volume| volume.write(0, &[0x5A; 4096]));
    let flushed = owner.flush();
    for _ in 0..8 {
        if !matches!(owner.step(Default::default()), Ok(Stepped::More)) {
            break;
        }
    }
    let closed = owner.close();
    let Ok(seq) = written else { return };
    assert!(seq == before.next(), "the next seq follows the newest");
    let again = Store::open_read_only(storage.clone() as Arc<dyn Storage>, options());
    if let (Ok(_), Ok(_), Ok(store)) = (flushed, closed, &again) {
        let mut found = vec![0; 4096];
        match store.volume(None).and_then(|volume| volume.read(0, &mut found)) {
            Ok(()) => assert_eq!(found, [0x5A; 4096], "a new write is read back"),
            // Pages of older runs are looked at too.
            Err(error) => assert!(error.is_damage(), "{error}"),
        }
        if before.get() == truth.newest {
            compare(store, truth, forged);
        }
    } else {
        assert!(again.is_ok() || forged, "a store that an owner has written on opens: {:?}", again.err());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1]];
    for choice in 0..2u8 {
        let files = truths()[usize::from(choice)].files.len();
        for file in 0..files {
            for kind in 0..12u8 {
                let mut seed = vec![choice];
                for step in 0..3u32 {
                    seed.extend([kind, u8::try_from(file).unwrap_or(0)]);
                    seed.extend((step * 40_503 + u32::from(kind)).to_le_bytes());
                    seed.extend((step * 77_777 + 3).to_le_bytes());
                }
                seeds.push(seed);
            }
        }
    }
    seeds
}
