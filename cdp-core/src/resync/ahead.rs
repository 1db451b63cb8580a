//! Reading a source ahead: threads that fill buffers while the one that asked for them compares what came before.
//!
//! Who asks decides what is read and in which order it is taken; a request is answered once. Invariant *bounded*: buffers are made for the
//! requests that are open at a time, and used again. Without threads a request is answered in the thread that makes it.

use super::SourceReader;
use crate::{
    dirty_map::ByteRange,
    error::{Error, Result},
    io::AlignedBuf,
    units::to_len,
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
    /// The bytes, in the front of a buffer that is given back by [`ReadAhead::give_back`].
    Data(AlignedBuf),
    /// Zeroes, which were not read.
    Hole,
    /// Data, and more of it than is read at a time: ask for less.
    TooLong,
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
    range: ByteRange,
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
    free: Mutex<Vec<AlignedBuf>>,
}

impl ReadAhead {
    /// Reads with `readers` threads; 0: none is started.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(source: Arc<dyn SourceReader>, readers: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { source, free: Mutex::default() });
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
                    let _ = job.answer.send(shared.fetch(job.range));
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

    /// Asks for a range. It is read after this call has begun.
    pub fn request(&self, range: ByteRange) -> Request {
        let Some(jobs) = &self.jobs else { return Request::Done(self.shared.fetch(range)) };
        let (answer, receiver) = sync_channel(1);
        match jobs.send(Job { range, answer }) {
            Ok(()) => Request::Waiting(receiver),
            Err(_) => Request::Done(Err(io::Error::other("the threads that read it have ended"))),
        }
    }

    /// Gives a buffer back, to be used again.
    pub fn give_back(&self, buffer: AlignedBuf) {
        self.shared.free.lock().push(buffer);
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
    fn fetch(&self, range: ByteRange) -> io::Result<Fetched> {
        let data = self.source.next_data(range.offset).unwrap_or(Some(range.offset));
        if data.is_none_or(|data| data >= range.end()) {
            return Ok(Fetched::Hole);
        }
        if range.bytes > PIECE_BYTES {
            return Ok(Fetched::TooLong);
        }
        let kept = self.free.lock().pop();
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => AlignedBuf::new(to_len(PIECE_BYTES))?,
        };
        let read = self.source.read_at(range.offset, &mut buffer[..to_len(range.bytes)]);
        match read {
            Ok(()) => Ok(Fetched::Data(buffer)),
            Err(error) => {
                self.free.lock().push(buffer);
                Err(error)
            }
        }
    }
}
