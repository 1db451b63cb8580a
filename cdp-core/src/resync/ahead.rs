//! Reading a source ahead: threads that fill buffers while the one that asked for them compares what came before.
//!
//! Who asks decides what is read and in which order it is taken; a request is answered once. Invariant *bounded*: buffers are made for the
//! requests that are open at a time, and used again; what differs of a piece of a source across a link is at most that piece, of
//! [`DIGEST_REQUEST_BYTES_MAX`](crate::limits::DIGEST_REQUEST_BYTES_MAX) bytes. Without threads a request is answered in the thread that makes it.

use super::{
    SourceReader,
    digests::{DigestCounts, DigestUnit, SourceDigests, ask, differing, digest_of_block},
};
use crate::{
    dirty_map::ByteRange,
    error::{Error, Result},
    format::digest::DigestKey,
    io::{AlignedBuf, BufferPool},
    units::{BLOCK_LEN, to_len},
};
use parking_lot::Mutex;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
};

/// Bytes read from a source at a time.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
/// Requests that are open for each thread.
const REQUESTS_A_READER: usize = 2;

/// What a source holds in a range.
pub(crate) enum Fetched {
    /// The bytes.
    Data(Taken),
    /// Zeroes, which were not read.
    Hole,
    /// Data, and more of it than is read at a time: ask for less.
    TooLong,
    /// What differs from the digests that were given, across a link.
    Differing(Moved),
    /// Digests that were taken across a link.
    Digests(Vec<u64>, DigestCounts),
}

/// Bytes of a source.
pub(crate) struct Taken {
    /// In its front.
    pub buffer: AlignedBuf,
    /// The digests of their blocks, where they were asked for; else empty. Who reads takes them, so that several threads share that work too.
    pub digests: Vec<u64>,
}

/// What differs of a piece of a source across a link, and was moved.
pub(crate) struct Moved {
    /// Ascending, merged.
    pub ranges: Vec<ByteRange>,
    /// The bytes of all ranges, one behind the other.
    pub bytes: Vec<u8>,
    pub counts: DigestCounts,
}

impl Moved {
    /// The ranges, each with its bytes.
    pub fn parts(&self) -> impl Iterator<Item = (ByteRange, &[u8])> {
        let mut rest = &self.bytes[..];
        self.ranges.iter().map(move |range| {
            let (part, behind) = rest.split_at(to_len(range.bytes));
            rest = behind;
            (*range, part)
        })
    }
}

/// What is asked of a source.
enum Ask {
    /// The bytes of a range, and with a key the digests of its blocks.
    Bytes(ByteRange, Option<DigestKey>),
    /// What of some ranges differs from these digests of their blocks, and the bytes of that.
    Differing(Vec<ByteRange>, DigestKey, Vec<Option<u64>>),
    /// The digests of a range.
    Digests(ByteRange, DigestKey, DigestUnit),
}

/// A request that was made.
pub(crate) enum Request {
    Done(io::Result<Fetched>),
    Waiting(Receiver<io::Result<Fetched>>),
}

impl Request {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Those of the source as `Io`.
    pub fn answer(self) -> Result<Fetched> {
        let answer = match self {
            Self::Done(answer) => answer,
            Self::Waiting(receiver) => {
                receiver.recv().unwrap_or_else(|_| Err(io::Error::other("a thread that reads it has ended")))
            }
        };
        answer.map_err(|error| Error::io("read", super::SOURCE, error))
    }
}

struct Job {
    ask: Ask,
    answer: SyncSender<io::Result<Fetched>>,
}

/// A source and the threads that read it, which end when this is dropped.
pub(crate) struct ReadAhead {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    readers: Vec<JoinHandle<()>>,
}

struct Shared {
    source: Arc<dyn SourceReader>,
    buffers: BufferPool,
}

impl ReadAhead {
    /// Reads with `readers` threads; 0: none is started.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(source: Arc<dyn SourceReader>, readers: usize) -> io::Result<Self> {
        let kept = (readers * REQUESTS_A_READER).max(1);
        let shared = Arc::new(Shared { source, buffers: BufferPool::new(to_len(PIECE_BYTES), kept) });
        let mut ahead = Self { shared, jobs: None, readers: Vec::new() };
        if readers == 0 {
            return Ok(ahead);
        }
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..readers {
            let (queue, shared) = (queue.clone(), ahead.shared.clone());
            let work = move || {
                loop {
                    let job = queue.lock().recv();
                    let Ok(job) = job else { return };
                    // Nobody waits any more when the work was broken off.
                    let _ = job.answer.send(shared.answer(&job.ask));
                }
            };
            ahead.readers.push(std::thread::Builder::new().name("cdp-resync".into()).spawn(work)?);
        }
        ahead.jobs = Some(jobs);
        Ok(ahead)
    }

    /// The source.
    pub fn source(&self) -> &Arc<dyn SourceReader> {
        &self.shared.source
    }

    /// Requests that are worth being open at a time.
    pub fn depth(&self) -> usize {
        (self.readers.len() * REQUESTS_A_READER).max(1)
    }

    /// Bytes from `offset` on that are known to be zeroes, up to `end`; 0 when there is data, or nobody knows.
    pub fn hole_at(&self, offset: u64, end: u64) -> u64 {
        match self.shared.source.next_data(offset) {
            Ok(next) => next.unwrap_or(end).min(end).saturating_sub(offset),
            Err(_) => 0,
        }
    }

    /// Whether the source lies across a link and answers digests there.
    pub fn has_digests(&self) -> bool {
        self.shared.source.digests().is_some()
    }

    /// Asks for a range, and with a key for the digests of its blocks. It is read after this call has begun.
    pub fn request(&self, range: ByteRange, key: Option<DigestKey>) -> Request {
        self.send(Ask::Bytes(range, key))
    }

    /// Asks for what of some ranges differs from what is `known` of their blocks; digests are taken after this call has begun. Only where
    /// [`ReadAhead::has_digests`].
    pub fn request_differing(
        &self,
        ranges: Vec<ByteRange>,
        key: DigestKey,
        known: Vec<Option<u64>>,
    ) -> Request {
        self.send(Ask::Differing(ranges, key, known))
    }

    /// Asks for the digests of a range, which are taken after this call has begun. Only where [`ReadAhead::has_digests`].
    pub fn request_digests(&self, range: ByteRange, key: DigestKey, unit: DigestUnit) -> Request {
        self.send(Ask::Digests(range, key, unit))
    }

    fn send(&self, ask: Ask) -> Request {
        let Some(jobs) = &self.jobs else { return Request::Done(self.shared.answer(&ask)) };
        let (answer, receiver) = sync_channel(1);
        match jobs.send(Job { ask, answer }) {
            Ok(()) => Request::Waiting(receiver),
            Err(_) => Request::Done(Err(io::Error::other("the threads that read it have ended"))),
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.jobs = None;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn answer(&self, asked: &Ask) -> io::Result<Fetched> {
        match asked {
            Ask::Bytes(range, key) => self.fetch(*range, *key),
            Ask::Differing(ranges, key, known) => {
                self.fetch_differing(ranges, *key, known).map(Fetched::Differing)
            }
            Ask::Digests(range, key, unit) => {
                let mut counts = DigestCounts::default();
                let digests = ask(self.far()?, *key, *unit, &[*range], &mut counts)?;
                Ok(Fetched::Digests(digests, counts))
            }
        }
    }

    fn far(&self) -> io::Result<&dyn SourceDigests> {
        self.source.digests().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn fetch_differing(
        &self,
        ranges: &[ByteRange],
        key: DigestKey,
        known: &[Option<u64>],
    ) -> io::Result<Moved> {
        let far = self.far()?;
        let found = differing(far, key, ranges, known)?;
        let mut bytes = vec![0; to_len(found.ranges.iter().map(|range| range.bytes).sum())];
        if !found.ranges.is_empty() {
            far.read_ranges(&found.ranges, &mut bytes)?;
        }
        Ok(Moved { ranges: found.ranges, bytes, counts: found.counts })
    }

    fn fetch(&self, range: ByteRange, key: Option<DigestKey>) -> io::Result<Fetched> {
        let data = self.source.next_data(range.offset).unwrap_or(Some(range.offset));
        if data.is_none_or(|data| data >= range.end()) {
            return Ok(Fetched::Hole);
        }
        if range.bytes > PIECE_BYTES {
            return Ok(Fetched::TooLong);
        }
        let mut buffer = self.buffers.take()?;
        let bytes = &mut buffer[..to_len(range.bytes)];
        self.source.read_at(range.offset, bytes)?;
        let digests_by = |key| bytes.chunks(BLOCK_LEN).map(|block| digest_of_block(key, block)).collect();
        let digests = key.map(digests_by).unwrap_or_default();
        Ok(Fetched::Data(Taken { buffer, digests }))
    }
}
