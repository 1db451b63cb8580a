//! How far a verification came, in a form that its host keeps: the next one goes on there, also in another process.

use crate::{
    catalog::VolumeInfo,
    error::{Error, Result},
    format::Uuid,
    units::BLOCK_BYTES,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Ranges of bytes: ascending, merged.
type Ranges = Vec<Range<u64>>;

const VERSION: u32 = 1;
/// Differences that a cursor names at most; a verification that has found more keeps the cursor it had.
const RANGES_MAX: usize = 1 << 16;

/// How far a verification came: everything below was compared, and what differed is looked at once more when it ends. Keep its text where a crash
/// leaves it whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyCursor {
    version: u32,
    store: String,
    volume: u16,
    volume_bytes: u64,
    /// Bytes of the volume that were compared: all below.
    next: u64,
    /// Ranges of bytes that differed, ascending.
    different: Ranges,
    /// Ranges of bytes of them that the store could not read, ascending.
    damaged: Ranges,
}

/// Where a verification begins, and what it tells on the way.
pub struct VerifyResume<'a> {
    /// What an earlier one of the same volume kept last; `None`: from the beginning.
    pub from: Option<VerifyCursor>,
    /// Told every two seconds and when the verification is cancelled. An error ends it.
    pub keep: &'a mut dyn FnMut(&VerifyCursor) -> Result<()>,
}

impl VerifyCursor {
    pub(super) fn new(
        store: Uuid,
        info: &VolumeInfo,
        next: u64,
        different: &[Range<u64>],
        damaged: &[Range<u64>],
    ) -> Option<Self> {
        let fits = different.len() <= RANGES_MAX && damaged.len() <= RANGES_MAX;
        fits.then(|| Self {
            version: VERSION,
            store: store.to_string(),
            volume: info.id.get(),
            volume_bytes: info.bytes,
            next,
            different: different.to_vec(),
            damaged: damaged.to_vec(),
        })
    }

    /// Bytes of the volume that were compared, from its beginning.
    pub fn compared(&self) -> u64 {
        self.next
    }

    /// As text to be kept.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain numbers and names")
    }

    /// From the text of [`VerifyCursor::to_text`].
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn from_text(text: &str) -> Result<Self> {
        let invalid =
            |what: &str| Error::InvalidArgument(format!("this is no cursor of a verification: {what}"));
        let cursor: Self = serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
        if cursor.version != VERSION {
            return Err(invalid(&format!("it has version {}, known is {VERSION}", cursor.version)));
        }
        let is_sound = |ranges: &[Range<u64>]| {
            ranges.len() <= RANGES_MAX
                && ranges.iter().all(|range| range.start < range.end && range.end <= cursor.next)
                && ranges.is_sorted_by(|a, b| a.end <= b.start)
        };
        let whole_blocks = cursor.next.is_multiple_of(BLOCK_BYTES) || cursor.next == cursor.volume_bytes;
        if cursor.next > cursor.volume_bytes
            || !whole_blocks
            || !is_sound(&cursor.different)
            || !is_sound(&cursor.damaged)
        {
            return Err(invalid("its numbers do not fit together"));
        }
        Ok(cursor)
    }

    /// What it says of a volume: how far everything was compared, what differed and what of it was damaged. Nothing when the volume has another
    /// size since.
    ///
    /// # Errors
    /// `InvalidArgument` when it is of another store or volume.
    pub(super) fn of(self, store: Uuid, info: &VolumeInfo) -> Result<(u64, [Ranges; 2])> {
        if self.store != store.to_string() || self.volume != info.id.get() {
            return Err(Error::InvalidArgument(
                "the cursor is of the verification of another volume; verify without it".into(),
            ));
        }
        match self.volume_bytes == info.bytes {
            true => Ok((self.next, [self.different, self.damaged])),
            false => Ok((0, [Vec::new(), Vec::new()])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CreateOptions, OpenOptions, Progress, SourceReader, Store, VerifyOptions, io::MemoryStorage,
        units::to_len,
    };
    use std::sync::Arc;

    const BYTES: u64 = 32 << 20;

    struct Disk(Vec<u8>);

    impl SourceReader for Disk {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            let at = to_len(offset);
            buf.copy_from_slice(&self.0[at..at + buf.len()]);
            Ok(())
        }
    }

    fn store() -> Store {
        let create = CreateOptions { volume: "disk".into(), bytes: BYTES };
        Store::create(Arc::new(MemoryStorage::new()), &create, OpenOptions::default()).unwrap()
    }

    /// Goal: a verification that is ended at any of its pieces goes on there, and finds what one in a single run finds. Method: two differences; each
    /// piece at which it can end; what the cursor says went through its text.
    #[test]
    fn a_verification_goes_on_where_it_ended() {
        let store = store();
        let mut disk = vec![0; to_len(BYTES)];
        (disk[5000], disk[to_len(BYTES) - 9000]) = (1, 1);
        let disk = Arc::new(Disk(disk));
        let options = VerifyOptions::default();
        let verify = |from: Option<VerifyCursor>, pieces: u64| {
            let (mut kept, seen) = (None, std::cell::Cell::new(0));
            let mut keep = |cursor: &VerifyCursor| {
                kept = Some(VerifyCursor::from_text(&cursor.to_text())?);
                Ok(())
            };
            let resume = VerifyResume { from, keep: &mut keep };
            let mut progress = |_: Progress| seen.set(seen.get() + 1);
            let report = store
                .verify_resumable(None, disk.clone(), &options, resume, &mut progress, &|| {
                    seen.get() >= pieces
                })
                .unwrap();
            (report, kept)
        };
        let (whole, kept) = verify(None, u64::MAX);
        assert!(whole.complete && kept.is_none());
        assert_eq!(whole.extents.len(), 2);
        let mut ended = 0;
        for pieces in 0.. {
            let (first, kept) = verify(None, pieces);
            if first.complete {
                break;
            }
            let cursor = kept.expect("it is kept when it is cancelled");
            assert_eq!(cursor.compared(), first.bytes_compared);
            let (second, _) = verify(Some(cursor), u64::MAX);
            assert_eq!(second.extents, whole.extents, "ended after {pieces}");
            assert_eq!(second.bytes_compared + first.bytes_compared, BYTES);
            ended += 1;
        }
        assert!(ended > 5, "it ended at {ended} pieces");
    }

    /// Goal: a cursor of something else is refused, and one of another size begins anew. Method: another store; a volume that has grown; texts that
    /// are no cursors.
    #[test]
    fn a_cursor_of_something_else_is_refused() {
        let (store, other) = (store(), store());
        let info = |store: &Store| store.volume(None).unwrap().info();
        let id = |store: &Store| store.id();
        let part = std::slice::from_ref(&(4096..8192));
        let cursor = VerifyCursor::new(id(&store), &info(&store), 1 << 20, part, &[]).unwrap();
        assert_eq!(cursor.clone().of(id(&store), &info(&store)).unwrap(), (1 << 20, [part.to_vec(), vec![]]));
        let error = cursor.clone().of(id(&other), &info(&other)).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        store.resize_volume("disk", 2 * BYTES).unwrap();
        assert_eq!(cursor.clone().of(id(&store), &info(&store)).unwrap(), (0, [vec![], vec![]]));
        let text = cursor.to_text();
        for (old, new) in [
            ("\"version\":1", "\"version\":2"),
            ("\"next\":1048576", "\"next\":1048577"),
            ("\"next\":1048576", "\"next\":4096"),
            ("\"next\":1048576", "\"next\":999999999999"),
            ("\"start\":4096", "\"start\":8192"),
            ("\"next\"", "\"further\""),
        ] {
            let changed = text.replacen(old, new, 1);
            assert_ne!(changed, text, "{old}");
            let error = VerifyCursor::from_text(&changed).unwrap_err();
            assert!(error.to_string().contains("no cursor of a verification"), "{error}");
        }
    }
}
