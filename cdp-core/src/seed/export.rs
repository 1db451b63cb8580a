//! Writing a seed set.
//!
//! Order, so that a cut anywhere leaves what is whole: the plan; for each data file its batches, a sync, its head, a sync; then the manifest. A later
//! export of the same states to the same place takes over the files whose head is there, and goes on behind the last.

use super::{
    MANIFEST, PLAN, damaged, failed, file_extent,
    layout::{
        BATCH_LEN_MAX, NewExtent, SeedAbout, SeedFile, SeedManifest, decode_file_head, encode_batch,
        encode_file_head,
    },
    set::read_manifest,
};
use crate::{
    dirty_map::ByteRange,
    error::{Error, Result},
    format::{PAGE_LEN, all_zero},
    io::{AlignedBuf, Extent, Storage},
    limits::{SEED_BATCH_BYTES_MAX, SEED_BATCH_EXTENTS_MAX, SEED_FILE_BYTES_MIN, SEED_FILES_MAX},
    snapshot::Snapshot,
    units::{BLOCK_LEN, ExtentId, Seq, len_u64, to_len},
};
use std::{ops::Deref, sync::Arc};
use twox_hash::XxHash3_128;

/// Usual size of a data file, bytes.
const FILE_BYTES: u64 = 256 << 20;

/// How a volume is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Only what was written after this state; `None`: everything.
    pub since: Option<Seq>,
    /// Most bytes of a data file: 4 MiB to 512 GiB. Default 256 MiB; what a cut makes the next run repeat at most.
    pub file_bytes_max: u64,
    /// Pack data by lz4 where that gains. Default.
    pub compress: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { since: None, file_bytes_max: FILE_BYTES, compress: true }
    }
}

/// What an export has written, earlier runs included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What the set holds.
    pub about: SeedAbout,
    /// Bytes of data read from the store by this run.
    pub data_bytes: u64,
    /// Data files of the set.
    pub files: usize,
    /// Bytes of the data files.
    pub stored_bytes: u64,
    /// Some of them, or all, were there from a run that was cut off.
    pub resumed: bool,
    /// Everything is there. Else `progress` has stopped it, and another run goes on.
    pub complete: bool,
}

/// Where a set is written to, for the time of a call or for as long as it takes.
pub(super) enum Place<'a> {
    Borrowed(&'a dyn Storage),
    Shared(Arc<dyn Storage>),
}

impl<'a> Deref for Place<'a> {
    type Target = dyn Storage + 'a;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Borrowed(storage) => *storage,
            Self::Shared(storage) => &**storage,
        }
    }
}

/// Writes what a snapshot holds at the beginning of a range, at most 1 MiB or a hole; returns where it ended. Zeroes are recorded where they may be news.
pub(super) fn export_piece(
    snapshot: &Snapshot,
    range: ByteRange,
    zeroes: bool,
    buf: &mut AlignedBuf,
    writer: &mut Writer<'_>,
) -> Result<u64> {
    let (at, end) = (range.offset, range.end());
    let data_from = snapshot.next_data(at)?.map_or(end, |data| data.min(end));
    if data_from > at {
        if zeroes {
            writer.put_zeroes(ByteRange::new(at, data_from - at))?;
        }
        return Ok(data_from);
    }
    let len = to_len((end - at).min(len_u64(SEED_BATCH_BYTES_MAX)));
    let data = &mut buf[..len];
    snapshot.read(at, data)?;
    writer.data_bytes += len_u64(len);
    let mut from = 0;
    while from < len {
        let is_zero = |at: usize| all_zero(&data[at..len.min(at + BLOCK_LEN)]);
        let (kind, start) = (is_zero(from), from);
        while from < len && is_zero(from) == kind {
            from = len.min(from + BLOCK_LEN);
        }
        let range = ByteRange::new(at + len_u64(start), len_u64(from - start));
        match kind {
            true if zeroes => writer.put_zeroes(range)?,
            true => {}
            false => writer.put_data(range, &data[start..from])?,
        }
    }
    Ok(at + len_u64(len))
}

pub(super) enum Begun<'a> {
    /// All of it was there.
    Whole(Exported),
    Parts(Box<Writer<'a>>),
}

/// The data file that is being written.
struct OpenFile {
    extent: Arc<dyn Extent>,
    file: SeedFile,
    hasher: Box<XxHash3_128>,
}

pub(super) struct Writer<'a> {
    storage: Place<'a>,
    about: SeedAbout,
    compress: bool,
    files: Vec<SeedFile>,
    open: Option<OpenFile>,
    extents: Vec<NewExtent>,
    data: Vec<u8>,
    buf: AlignedBuf,
    resumed: bool,
    pub(super) data_bytes: u64,
}

/// Writes bytes that were never there before, durably.
fn write_whole(storage: &dyn Storage, id: ExtentId, bytes: &[u8]) -> Result<()> {
    let mut buf = AlignedBuf::new(bytes.len()).map_err(failed(storage, "reserve memory for", id))?;
    buf[..bytes.len()].copy_from_slice(bytes);
    let extent = storage.create(id, 0).map_err(failed(storage, "create", id))?;
    extent.write_at(0, &buf).map_err(failed(storage, "write", id))?;
    extent.sync().map_err(failed(storage, "sync", id))?;
    storage.sync_names().map_err(failed(storage, "sync the names of", id))
}

fn sync(storage: &dyn Storage, id: ExtentId) -> Result<()> {
    let extent = storage.open(id).map_err(failed(storage, "open", id))?;
    extent.sync().map_err(failed(storage, "sync", id))
}

/// Whether a plan was cut off before it was durable: nothing can have followed it.
fn is_cut_off(storage: &dyn Storage, found: &[ExtentId]) -> Result<bool> {
    if found != [PLAN] {
        return Ok(false);
    }
    let extent = storage.open(PLAN).map_err(failed(storage, "open", PLAN))?;
    let bytes = extent.size().map_err(failed(storage, "find the size of", PLAN))?;
    if bytes < len_u64(PAGE_LEN) {
        return Ok(true);
    }
    let mut buf = AlignedBuf::new(PAGE_LEN).map_err(failed(storage, "reserve memory for", PLAN))?;
    extent.read_at(0, &mut buf).map_err(failed(storage, "read", PLAN))?;
    // Sectors are written or not; what is there of them must be that of a plan.
    Ok(bytes == len_u64(PAGE_LEN) && (all_zero(&buf[..512]) || buf.starts_with(b"CDPSEEDM")))
}

impl<'a> Writer<'a> {
    pub fn begin(storage: Place<'a>, about: SeedAbout, compress: bool) -> Result<Begun<'a>> {
        let found = storage.list().map_err(|error| Error::io("list", "the seed set", error))?;
        let plan = storage.describe(PLAN);
        let other = |what: &str| Error::Exists {
            what: "seed set of something else, or another thing, in",
            name: format!("{plan} ({what}; choose an empty place)"),
        };
        let buf = AlignedBuf::new(BATCH_LEN_MAX).map_err(failed(&*storage, "reserve memory for", PLAN))?;
        let mut writer = Self {
            storage,
            about,
            compress,
            files: Vec::new(),
            open: None,
            extents: Vec::new(),
            data: Vec::new(),
            buf,
            resumed: false,
            data_bytes: 0,
        };
        let storage = &*writer.storage;
        let plan = match read_manifest(storage, PLAN) {
            Ok(plan) => plan,
            Err(Error::Damaged(_)) if is_cut_off(storage, &found)? => {
                storage.remove(PLAN).map_err(failed(storage, "remove", PLAN))?;
                None
            }
            Err(Error::Damaged(damage)) => return Err(other(&damage.what)),
            Err(error) => return Err(error),
        };
        let Some(plan) = plan else {
            if found.iter().any(|id| *id != PLAN) {
                return Err(other("there is no plan of an export"));
            }
            let plan = SeedManifest { about: writer.about.clone(), files: None };
            write_whole(storage, PLAN, &plan.encode())?;
            return Ok(Begun::Parts(Box::new(writer)));
        };
        let same = SeedAbout { set: plan.about.set, ..writer.about.clone() };
        if plan.about != same || plan.files.is_some() {
            return Err(other("an export of other states, or with other files, was begun there"));
        }
        writer.about = same;
        writer.resumed = true;
        match read_manifest(storage, MANIFEST) {
            Ok(Some(SeedManifest { files: Some(files), about })) if about == writer.about => {
                writer.files = files;
                sync(storage, PLAN)?;
                sync(storage, MANIFEST)?;
                storage.sync_names().map_err(failed(storage, "sync the names of", MANIFEST))?;
                return Ok(Begun::Whole(writer.exported(true)));
            }
            Ok(None) => {}
            // Cut off while it was written.
            Ok(Some(_)) | Err(Error::Damaged(_)) => {
                storage.remove(MANIFEST).map_err(failed(storage, "remove", MANIFEST))?;
            }
            Err(error) => return Err(error),
        }
        writer.take_over(&found)?;
        Ok(Begun::Parts(Box::new(writer)))
    }

    /// Takes over the data files that are whole, and removes the rest. What a killed process has written is seen, and need not be durable: it is synced before
    /// anything is built on it.
    fn take_over(&mut self, found: &[ExtentId]) -> Result<()> {
        sync(&*self.storage, PLAN)?;
        while found.contains(&file_extent(self.files.len())) {
            let (number, id) = (self.files.len(), file_extent(self.files.len()));
            let extent = self.storage.open(id).map_err(failed(&*self.storage, "open", id))?;
            let bytes = extent.size().map_err(failed(&*self.storage, "find the size of", id))?;
            if bytes < len_u64(PAGE_LEN) {
                break;
            }
            sync(&*self.storage, id)?;
            let head = &mut self.buf[..PAGE_LEN];
            extent.read_at(0, head).map_err(failed(&*self.storage, "read", id))?;
            let plain = u32::try_from(number).expect("files are bounded");
            match decode_file_head(head, self.about.set, plain, self.about.at.bytes) {
                Ok(file) if file.bytes == bytes && file.first >= self.reached() => self.files.push(file),
                _ => break,
            }
        }
        let whole = self.files.len();
        for id in found.iter().filter(|id| **id >= file_extent(whole)) {
            self.storage.remove(*id).map_err(failed(&*self.storage, "remove", *id))?;
        }
        self.storage.sync_names().map_err(failed(&*self.storage, "sync the names of", PLAN))
    }

    /// Where the files that are whole end on the volume.
    pub fn reached(&self) -> u64 {
        self.files.last().map_or(0, |file| file.end)
    }

    fn put_zeroes(&mut self, range: ByteRange) -> Result<()> {
        match self.extents.last_mut() {
            Some((last, true)) if last.end() == range.offset => last.bytes += range.bytes,
            _ => {
                self.make_room(0)?;
                self.extents.push((range, true));
            }
        }
        Ok(())
    }

    fn put_data(&mut self, range: ByteRange, data: &[u8]) -> Result<()> {
        self.make_room(data.len())?;
        match self.extents.last_mut() {
            Some((last, false)) if last.end() == range.offset => last.bytes += range.bytes,
            _ => self.extents.push((range, false)),
        }
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn make_room(&mut self, len: usize) -> Result<()> {
        let full =
            self.data.len() + len > SEED_BATCH_BYTES_MAX || self.extents.len() >= SEED_BATCH_EXTENTS_MAX;
        if full { self.write_batch() } else { Ok(()) }
    }

    /// Writes what has been collected, in the next data file where the open one is full.
    fn write_batch(&mut self) -> Result<()> {
        if self.extents.is_empty() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin_file()?,
        };
        let mut batch = self.encoded(&open);
        if open.file.bytes + len_u64(batch.len()) > self.about.file_bytes_max && open.file.batches > 0 {
            self.end_file(open)?;
            open = self.begin_file()?;
            batch = self.encoded(&open);
        }
        let id = file_extent(self.files.len());
        self.buf[..batch.len()].copy_from_slice(&batch);
        let written = open.extent.write_at(open.file.bytes, &self.buf[..batch.len()]);
        written.map_err(failed(&*self.storage, "write", id))?;
        open.hasher.write(&batch);
        let file = &mut open.file;
        if file.batches == 0 {
            file.first = self.extents[0].0.offset;
        }
        file.end = self.extents[self.extents.len() - 1].0.end();
        file.bytes += len_u64(batch.len());
        file.batches += 1;
        self.open = Some(open);
        self.extents.clear();
        self.data.clear();
        Ok(())
    }

    fn encoded(&self, open: &OpenFile) -> Vec<u8> {
        encode_batch(open.file.nonce, open.file.batches, &self.extents, &self.data, self.compress)
    }

    fn begin_file(&self) -> Result<OpenFile> {
        if self.files.len() >= SEED_FILES_MAX {
            return Err(Error::InvalidArgument(format!(
                "the set would have more than {SEED_FILES_MAX} data files; export to another place with larger ones"
            )));
        }
        let id = file_extent(self.files.len());
        let extent = self.storage.create(id, 0).map_err(failed(&*self.storage, "create", id))?;
        let nonce = crate::group::random_uuid()?.short();
        let bytes = len_u64(PAGE_LEN);
        let file = SeedFile { nonce, bytes, first: 0, end: 0, batches: 0, digest: 0 };
        Ok(OpenFile { extent, file, hasher: Box::default() })
    }

    /// Everything of a data file is durable before its head says that it is whole.
    fn end_file(&mut self, mut open: OpenFile) -> Result<()> {
        let number = self.files.len();
        let id = file_extent(number);
        open.file.digest = open.hasher.finish_128();
        open.extent.sync().map_err(failed(&*self.storage, "sync", id))?;
        let plain = u32::try_from(number).expect("files are bounded");
        self.buf[..PAGE_LEN].copy_from_slice(&encode_file_head(self.about.set, plain, &open.file));
        open.extent.write_at(0, &self.buf[..PAGE_LEN]).map_err(failed(&*self.storage, "write", id))?;
        open.extent.sync().map_err(failed(&*self.storage, "sync", id))?;
        self.storage.sync_names().map_err(failed(&*self.storage, "sync the names of", id))?;
        self.files.push(open.file);
        Ok(())
    }

    pub fn finish(&mut self) -> Result<Exported> {
        self.write_batch()?;
        if let Some(open) = self.open.take() {
            self.end_file(open)?;
        }
        let manifest = SeedManifest { about: self.about.clone(), files: Some(self.files.clone()) };
        write_whole(&*self.storage, MANIFEST, &manifest.encode())?;
        // What is written is what is read: a set that is carried away is not looked at again here.
        match read_manifest(&*self.storage, MANIFEST)? {
            Some(found) if found == manifest => Ok(self.exported(true)),
            _ => Err(damaged(
                &*self.storage,
                MANIFEST,
                0,
                len_u64(PAGE_LEN),
                "the manifest that was just written",
            )),
        }
    }

    pub fn exported(&self, complete: bool) -> Exported {
        Exported {
            about: self.about.clone(),
            data_bytes: self.data_bytes,
            files: self.files.len(),
            stored_bytes: self.files.iter().map(|file| file.bytes).sum(),
            resumed: self.resumed,
            complete,
        }
    }
}

const _: () = assert!(SEED_FILE_BYTES_MIN >= (PAGE_LEN + BATCH_LEN_MAX) as u64);
