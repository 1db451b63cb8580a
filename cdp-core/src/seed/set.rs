//! A seed set that is there: opening it, and reading its batches.

use super::{
    MANIFEST, PLAN, damaged, failed, file_extent,
    layout::{
        BATCH_LEN_MAX, Batch, BatchHead, MANIFEST_LEN_MAX, SeedAbout, SeedFile, SeedManifest,
        decode_file_head,
    },
};
use crate::{
    error::{Error, Result},
    format::PAGE_LEN,
    io::{AlignedBuf, Extent, Storage},
    restore::Progress,
    units::{ExtentId, len_u64, to_len},
};
use std::{fmt, io, ops::ControlFlow, sync::Arc};
use twox_hash::XxHash3_128;

/// A whole seed set, open for reading. Any threads.
pub struct SeedSet {
    storage: Arc<dyn Storage>,
    about: SeedAbout,
    files: Vec<SeedFile>,
}

impl fmt::Debug for SeedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeedSet({}, {} files)", self.about.set, self.files.len())
    }
}

/// Reads a plan or manifest; `None` when there is none.
pub(super) fn read_manifest(storage: &dyn Storage, id: ExtentId) -> Result<Option<SeedManifest>> {
    let extent = match storage.open(id) {
        Ok(extent) => extent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(storage, "open", id)(error)),
    };
    let bytes = extent.size().map_err(failed(storage, "find the size of", id))?;
    if bytes == 0 || bytes > len_u64(MANIFEST_LEN_MAX) || !bytes.is_multiple_of(len_u64(PAGE_LEN)) {
        return Err(damaged(storage, id, 0, bytes, "a manifest of a seed set, by its size"));
    }
    let mut buf = AlignedBuf::new(to_len(bytes)).map_err(failed(storage, "reserve memory for", id))?;
    extent.read_at(0, &mut buf).map_err(failed(storage, "read", id))?;
    let found = SeedManifest::decode(&buf[..to_len(bytes)]);
    found.map(Some).map_err(|wrong| damaged(storage, id, 0, bytes, wrong.0))
}

impl SeedSet {
    /// Opens a set for reading. Only its manifest is read.
    ///
    /// # Errors
    /// `NotFound` where there is no set, or its export has not ended; `Damaged`; `Io`.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let missing = |what| Error::NotFound { what, name: storage.describe(MANIFEST) };
        let Some(manifest) = read_manifest(&*storage, MANIFEST)? else {
            return Err(match read_manifest(&*storage, PLAN) {
                Ok(Some(_)) => {
                    missing("the manifest of a seed set whose export has not ended; run the export again:")
                }
                _ => missing("seed set with manifest"),
            });
        };
        let Some(files) = manifest.files else {
            return Err(damaged(&*storage, MANIFEST, 0, len_u64(PAGE_LEN), "a manifest and not a plan"));
        };
        Ok(Self { storage, about: manifest.about, files })
    }

    /// What it holds.
    pub fn about(&self) -> &SeedAbout {
        &self.about
    }

    /// Bytes of its data files.
    pub fn stored_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads every byte of the set and compares it with its digests. Stops when `progress` says so.
    ///
    /// # Errors
    /// `Damaged` for the first byte range that is not what was written; `Io`.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<()> {
        let (mut done, total) = (0, self.stored_bytes());
        for number in 0..self.files.len() {
            let file = self.files[number];
            let mut batches = self.batches(number)?;
            let mut hasher = XxHash3_128::new();
            while let Some(at) = batches.at() {
                let head = batches.head()?;
                let batch = batches.take(&head)?;
                hasher.write(batches.bytes(&head));
                drop(batch);
                if progress(Progress { done: done + at, total }).is_break() {
                    return Ok(());
                }
            }
            if hasher.finish_128() != file.digest {
                let what = "a data file, by its digest in the manifest";
                return Err(damaged(&*self.storage, file_extent(number), 0, file.bytes, what));
            }
            done += file.bytes;
        }
        Ok(())
    }

    pub(super) fn files(&self) -> &[SeedFile] {
        &self.files
    }

    /// The batches of a data file, from its beginning.
    ///
    /// # Errors
    /// `Damaged` for a file that is missing, short or of something else; `Io`.
    pub(super) fn batches(&self, number: usize) -> Result<Batches> {
        let (id, file) = (file_extent(number), self.files[number]);
        let storage = &*self.storage;
        let wrong = |what: &str| damaged(storage, id, 0, file.bytes, what);
        let extent = self.storage.open(id).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => wrong("a data file, which is missing"),
            _ => failed(storage, "open", id)(error),
        })?;
        if extent.size().map_err(failed(storage, "find the size of", id))? != file.bytes {
            return Err(wrong("a data file, by its size"));
        }
        let buf = AlignedBuf::new(BATCH_LEN_MAX).map_err(failed(storage, "reserve memory for", id))?;
        let mut batches = Batches {
            storage: Arc::clone(&self.storage),
            id,
            extent,
            file,
            buf,
            next: len_u64(PAGE_LEN),
            number: 0,
            reached: file.first,
        };
        batches.extent.read_at(0, &mut batches.buf[..PAGE_LEN]).map_err(failed(storage, "read", id))?;
        let plain = u32::try_from(number).expect("files are bounded");
        match decode_file_head(&batches.buf, self.about.set, plain, self.about.at.bytes) {
            Ok(head) if head == file => Ok(batches),
            Ok(_) => Err(damaged(storage, id, 0, len_u64(PAGE_LEN), "the data file that the manifest names")),
            Err(malformed) => Err(damaged(storage, id, 0, len_u64(PAGE_LEN), malformed.0)),
        }
    }
}

/// The batches of one data file, in order.
pub(super) struct Batches {
    storage: Arc<dyn Storage>,
    id: ExtentId,
    extent: Arc<dyn Extent>,
    file: SeedFile,
    buf: AlignedBuf,
    /// Where the next one begins.
    next: u64,
    number: u32,
    /// End of the last one on the volume.
    reached: u64,
}

impl Batches {
    /// Where the next batch begins; `None` at the end.
    pub(super) fn at(&self) -> Option<u64> {
        (self.next < self.file.bytes).then_some(self.next)
    }

    fn wrong(&self, length: usize, what: &str) -> Error {
        damaged(&*self.storage, self.id, self.next, len_u64(length), what)
    }

    /// Reads the head of the next batch.
    pub(super) fn head(&mut self) -> Result<BatchHead> {
        let read = self.extent.read_at(self.next, &mut self.buf[..PAGE_LEN]);
        read.map_err(failed(&*self.storage, "read", self.id))?;
        let head = BatchHead::decode(&self.buf).map_err(|malformed| self.wrong(PAGE_LEN, malformed.0))?;
        let end = self.next + len_u64(head.stored_len());
        let last = head.number.checked_add(1) == Some(self.file.batches);
        let fits = head.nonce == self.file.nonce
            && head.number == self.number
            && head.first >= self.reached
            && head.end <= self.file.end
            && (if last {
                end == self.file.bytes && head.end == self.file.end
            } else {
                end < self.file.bytes
            })
            && (self.number > 0 || head.first == self.file.first);
        if fits { Ok(head) } else { Err(self.wrong(PAGE_LEN, "the next batch of its file")) }
    }

    /// Passes over the next batch, whose head was read.
    pub(super) fn pass(&mut self, head: &BatchHead) {
        self.next += len_u64(head.stored_len());
        self.number += 1;
        self.reached = head.end;
    }

    /// Reads the next batch, whose head was read, and passes over it.
    pub(super) fn take(&mut self, head: &BatchHead) -> Result<Batch> {
        if head.stored_len() > PAGE_LEN {
            let rest = &mut self.buf[PAGE_LEN..head.stored_len()];
            let read = self.extent.read_at(self.next + len_u64(PAGE_LEN), rest);
            read.map_err(failed(&*self.storage, "read", self.id))?;
        }
        let batch = head
            .unpack(&self.buf[..head.stored_len()])
            .map_err(|malformed| self.wrong(head.stored_len(), malformed.0))?;
        self.pass(head);
        Ok(batch)
    }

    /// The bytes of the batch that was taken last.
    fn bytes(&self, head: &BatchHead) -> &[u8] {
        &self.buf[..head.stored_len()]
    }
}
