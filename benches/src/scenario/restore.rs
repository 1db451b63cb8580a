//! Restoring a point to a file, which is written past the page cache by threads of its own.

use super::{Bench, Measured, OWN_FILE, Ready};
use crate::{
    direct::DirectFile,
    error::{Context, Error, Result},
    probe::{Rate, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH},
};
use cdp_core::{
    RestoreTarget,
    io::AlignedBuf,
    units::{BLOCK_BYTES, Seq},
};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

pub fn ordered(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.ordered;
    prepare(bench, seq, SEQUENTIAL_BYTES as u64)
}

pub fn scattered(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.scattered;
    prepare(bench, seq, BLOCK_BYTES)
}

/// `counted_bytes`: how many bytes count as one operation.
fn prepare(bench: &mut Bench<'_>, seq: Seq, counted_bytes: u64) -> Result<Ready> {
    let snapshot = super::read::snapshot(&bench.open_history()?, seq)?;
    let file = DirectFile::create(&bench.scratch.join(OWN_FILE), snapshot.bytes())?;
    let mut target = FileTarget::start(file)?;
    Ready::new(move || {
        let started = Instant::now();
        let restored = snapshot.restore(8, &mut target, &mut |_| ()).when("restore a point")?;
        target.finish()?;
        let (bytes, seconds) = (restored.data_bytes, started.elapsed().as_secs_f64());
        Ok(Measured::new(Rate { operations: bytes / counted_bytes, bytes, seconds })
            .with("zero_mib", restored.zero_bytes as f64 / f64::from(1 << 20)))
    })
}

/// A part of a file to be written: its offset, a buffer, and the bytes of it that count.
type Part = (u64, AlignedBuf, usize);

/// Writes with as many requests in flight as the raw probe has.
struct FileTarget {
    file: Arc<DirectFile>,
    parts: Option<SyncSender<Part>>,
    free: Receiver<AlignedBuf>,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl FileTarget {
    fn start(file: DirectFile) -> Result<Self> {
        let file = Arc::new(file);
        let (parts, queue) = sync_channel::<Part>(SEQUENTIAL_DEPTH);
        let (give_back, free) = sync_channel(3 * SEQUENTIAL_DEPTH);
        for _ in 0..2 * SEQUENTIAL_DEPTH {
            // The channel has room for all of them.
            let _ = give_back.send(AlignedBuf::new(SEQUENTIAL_BYTES).when("allocate")?);
        }
        let queue = Arc::new(Mutex::new(queue));
        let writers = (0..SEQUENTIAL_DEPTH).map(|_| {
            let (queue, give_back, file) = (queue.clone(), give_back.clone(), file.clone());
            thread::spawn(move || {
                loop {
                    let part = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((offset, buffer, length)) = part else { return Ok(()) };
                    file.write(offset, &buffer[..length])?;
                    // Fails only when the restore is over.
                    let _ = give_back.send(buffer);
                }
            })
        });
        let writers = writers.collect();
        Ok(Self { file, writers, parts: Some(parts), free })
    }

    /// Waits for all writes, and syncs.
    fn finish(&mut self) -> Result<()> {
        self.parts = None;
        for writer in self.writers.drain(..) {
            let panicked = |_| Error::Usage("a thread that wrote the target panicked".into());
            writer.join().map_err(panicked)??;
        }
        self.file.sync()
    }
}

impl RestoreTarget for FileTarget {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let gone = || io::Error::other("the threads that write the target have ended");
        let mut at = offset;
        for piece in data.chunks(SEQUENTIAL_BYTES) {
            let mut buffer = self.free.recv().map_err(|_| gone())?;
            buffer[..piece.len()].copy_from_slice(piece);
            let parts = self.parts.as_ref().ok_or_else(gone)?;
            parts.send((at, buffer, piece.len())).map_err(|_| gone())?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The file is new: what is not written reads as zeroes.
    fn zero(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}
