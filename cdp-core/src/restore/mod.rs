//! Restore: writing a point to a target, in address order, sparse.

use crate::{
    error::{Error, Result},
    format::all_zero,
    group::TRANSFER_LEN,
    io::{AlignedBuf, BufferPool},
    snapshot::Snapshot,
    units::{BLOCK_LEN, len_u64, to_len},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

/// Bytes read and written at a time: a transfer, so that the buffers of the store fit.
const CHUNK_BYTES: u64 = len_u64(TRANSFER_LEN);
/// Most threads that read ahead.
const READERS_MAX: usize = 64;

/// How far long work has come, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// Where a restore writes to.
pub trait RestoreTarget {
    /// Writes `data` at byte `offset`. Offsets ascend; offset, length and address are multiples of 4096, but for the length at the end
    /// of a volume whose size is not.
    ///
    /// # Errors
    /// Those of the target, which end the restore.
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes `length` bytes from `offset` read as zeroes. A target that is known to be empty may do nothing.
    ///
    /// # Errors
    /// Those of the target, which end the restore.
    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()>;
}

/// Where a restore of several threads writes to: a file or a device. Every byte is told once, in no order.
pub trait SharedTarget: Sync {
    /// Writes `data` at byte `offset`, as [`RestoreTarget::write`] does, beside other calls.
    ///
    /// # Errors
    /// Those of the target, which end the restore.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes `length` bytes from `offset` read as zeroes, beside other calls. A target that is known to be empty may do nothing.
    ///
    /// # Errors
    /// Those of the target, which end the restore.
    fn zero(&self, offset: u64, length: u64) -> io::Result<()>;
}

/// What a restore wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of zeroes.
    pub zero_bytes: u64,
}

/// How far a restore in parts has come. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreState {
    /// Everything below this byte is restored.
    pub next: u64,
    /// What was written for it.
    pub restored: Restored,
}

/// Restores with `readers` threads of its own that read ahead; with 0 the calling thread reads too.
pub(crate) fn restore(
    snapshot: &Snapshot,
    readers: usize,
    target: &mut dyn RestoreTarget,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored> {
    let mut state = RestoreState::default();
    restore_part(snapshot, (readers, u64::MAX), &mut state, target, progress)?;
    Ok(state.restored)
}

/// The same for about so many bytes from where `state` says on; the state follows piece by piece, also up to a failure.
pub(crate) fn restore_part(
    snapshot: &Snapshot,
    (readers, bytes): (usize, u64),
    state: &mut RestoreState,
    target: &mut dyn RestoreTarget,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let total = snapshot.bytes();
    let until = state.next.saturating_add(bytes).min(total);
    if state.next >= until {
        return Ok(());
    }
    // Readers beside each other meet at whole chunks alone.
    state.next = state.next / CHUNK_BYTES * CHUNK_BYTES;
    let mut delivery = Delivery { target, progress, total, state };
    if readers > 0 {
        return read_ahead(snapshot, readers.min(READERS_MAX), until, &mut delivery);
    }
    while delivery.state.next < until {
        delivery.take(&read_piece(snapshot, delivery.state.next, snapshot.buffers())?)?;
    }
    Ok(())
}

/// Restores what begins at `offset`, a chunk at most or a hole of any length; returns where it ended.
pub(crate) fn restore_piece(
    snapshot: &Snapshot,
    offset: u64,
    target: &mut dyn RestoreTarget,
) -> Result<(u64, Restored)> {
    if offset >= snapshot.bytes() {
        return Ok((snapshot.bytes(), Restored::default()));
    }
    let piece = read_piece(snapshot, offset, snapshot.buffers())?;
    let mut state = RestoreState::default();
    let mut delivery = Delivery { target, progress: &mut |_| {}, total: snapshot.bytes(), state: &mut state };
    delivery.take(&piece)?;
    Ok((piece.end, state.restored))
}

/// A hole or a chunk of data: everything from `offset` to `end`.
struct Piece {
    offset: u64,
    end: u64,
    data: Option<AlignedBuf>,
}

/// Buffers of chunks for readers of their own, aligned, so that a target may write them with direct I/O.
fn buffers(readers: usize) -> BufferPool {
    // A reader fills one, one of each waits to be delivered, and one is being delivered.
    BufferPool::new(TRANSFER_LEN, 2 * readers + 1)
}

fn read_piece(snapshot: &Snapshot, offset: u64, spare: &BufferPool) -> Result<Piece> {
    let (end, holds_data) = piece_end(snapshot, offset)?;
    let data = if holds_data { Some(read_chunk(snapshot, offset, end, spare)?) } else { None };
    Ok(Piece { offset, end, data })
}

/// Where the chunk or the hole ends that begins at `offset`, and whether it holds data.
fn piece_end(snapshot: &Snapshot, offset: u64) -> Result<(u64, bool)> {
    let total = snapshot.bytes();
    let chunk_end = (offset + CHUNK_BYTES).min(total);
    let data_from = snapshot.next_data(offset)?.map_or(total, |data| data.min(total));
    if data_from < chunk_end {
        return Ok((chunk_end, true));
    }
    // Cut at a chunk, so that readers beside each other meet at the same places.
    Ok((if data_from == total { total } else { data_from / CHUNK_BYTES * CHUNK_BYTES }, false))
}

fn read_chunk(snapshot: &Snapshot, offset: u64, end: u64, spare: &BufferPool) -> Result<AlignedBuf> {
    let mut data = spare.take().map_err(|error| Error::io("reserve memory for", "a restore", error))?;
    snapshot.read(offset, &mut data[..to_len(end - offset)])?;
    Ok(data)
}

/// Chunks are read by several threads, at most a window ahead of the one that is delivered, and delivered in order.
fn read_ahead(snapshot: &Snapshot, readers: usize, until: u64, delivery: &mut Delivery<'_>) -> Result<()> {
    let next = AtomicU64::new(delivery.state.next);
    let window = Window::new(delivery.state.next, 2 * len_u64(readers) * CHUNK_BYTES);
    let spare = buffers(readers);
    thread::scope(|scope| {
        // A reader holds one piece that it has read and cannot hand over; the channel holds one more each.
        let (sender, receiver) = mpsc::sync_channel::<Result<Piece>>(readers);
        for _ in 0..readers {
            let (sender, next, window, spare) = (sender.clone(), &next, &window, &spare);
            let reader = move || loop {
                let offset = next.fetch_add(CHUNK_BYTES, Ordering::SeqCst);
                if offset >= until || !window.wait_for(offset) {
                    return;
                }
                let piece = read_piece(snapshot, offset, spare);
                if let Ok(piece) = &piece {
                    next.fetch_max(piece.end, Ordering::SeqCst);
                }
                if sender.send(piece).is_err() {
                    return;
                }
            };
            if let Err(error) = start(scope, reader) {
                window.move_to(u64::MAX);
                return Err(error);
            }
        }
        drop(sender);
        let outcome = deliver_in_order(&receiver, until, &window, delivery);
        window.move_to(u64::MAX);
        drop(receiver);
        outcome
    })
}

/// Starts a thread that ends with the scope.
fn start<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> Result<()> {
    let started = thread::Builder::new().name("cdp-restore".into()).spawn_scoped(scope, work);
    started.map(drop).map_err(|error| Error::io("start", "the threads of a restore", error))
}

fn deliver_in_order(
    receiver: &mpsc::Receiver<Result<Piece>>,
    until: u64,
    window: &Window,
    delivery: &mut Delivery<'_>,
) -> Result<()> {
    let mut early: BTreeMap<u64, Piece> = BTreeMap::new();
    let mut offset = delivery.state.next;
    while offset < until {
        let Some(entry) = early.first_entry().filter(|entry| *entry.key() <= offset) else {
            let piece = receiver.recv().expect("readers go on until all is delivered")?;
            early.insert(piece.offset, piece);
            continue;
        };
        let piece = entry.remove();
        // A hole that one reader found may reach over chunks that others looked at: they hold nothing either.
        if piece.end > offset {
            offset = piece.end;
            delivery.take(&piece)?;
            window.move_to(offset);
        }
    }
    Ok(())
}

/// Restores with `threads` threads, each of which reads a chunk and writes it itself, so that nothing is copied or handed over. The calling
/// thread only tells how far they are; with 0 it does the work.
pub(crate) fn restore_shared(
    snapshot: &Snapshot,
    threads: usize,
    target: &dyn SharedTarget,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored> {
    if threads == 0 {
        return restore(snapshot, 0, &mut OneOfMany(target), progress);
    }
    let claims = Claims { snapshot, next: Mutex::new(0), spare: buffers(threads.min(READERS_MAX)) };
    let (mut sum, mut done, mut failure) = (Restored::default(), 0, None);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads.min(READERS_MAX) {
            let (sender, claims) = (sender.clone(), &claims);
            let worker = move || {
                while let Some(piece) = claims.restore_next(target).transpose() {
                    let failed = piece.is_err();
                    if failed {
                        claims.end();
                    }
                    if sender.send(piece).is_err() || failed {
                        return;
                    }
                }
            };
            if let Err(error) = start(scope, worker) {
                claims.end();
                failure = Some(error);
                break;
            }
        }
        drop(sender);
        for piece in receiver {
            match piece {
                Ok((length, restored)) => {
                    done += length;
                    sum.data_bytes += restored.data_bytes;
                    sum.zero_bytes += restored.zero_bytes;
                    progress(Progress { done, total: snapshot.bytes() });
                }
                Err(error) => failure = failure.take().or(Some(error)),
            }
        }
    });
    failure.map_or(Ok(sum), Err)
}

/// The chunks and holes that nobody restores yet.
struct Claims<'a> {
    snapshot: &'a Snapshot,
    next: Mutex<u64>,
    spare: BufferPool,
}

impl Claims<'_> {
    /// Restores the next chunk or hole; returns its length and what was written, or `None` when there is none.
    fn restore_next(&self, target: &dyn SharedTarget) -> Result<Option<(u64, Restored)>> {
        let total = self.snapshot.bytes();
        let (offset, end, holds_data) = {
            let mut next = self.next.lock();
            if *next >= total {
                return Ok(None);
            }
            let (offset, (end, holds_data)) = (*next, piece_end(self.snapshot, *next)?);
            *next = end;
            (offset, end, holds_data)
        };
        let data = if holds_data { Some(read_chunk(self.snapshot, offset, end, &self.spare)?) } else { None };
        let piece = Piece { offset, end, data };
        let mut one = OneOfMany(target);
        let mut state = RestoreState::default();
        Delivery { target: &mut one, progress: &mut |_| {}, total, state: &mut state }.take(&piece)?;
        Ok(Some((end - offset, state.restored)))
    }

    /// Nothing is claimed any more.
    fn end(&self) {
        *self.next.lock() = u64::MAX;
    }
}

/// One of the threads that write a target.
struct OneOfMany<'a>(&'a dyn SharedTarget);

impl RestoreTarget for OneOfMany<'_> {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.0.zero(offset, length)
    }
}

/// How far readers may run ahead of the delivery, so that memory stays bounded when one of them is slow.
struct Window {
    delivered: Mutex<u64>,
    moved: Condvar,
    bytes: u64,
}

impl Window {
    fn new(delivered: u64, bytes: u64) -> Self {
        Self { delivered: Mutex::new(delivered), moved: Condvar::new(), bytes }
    }

    /// Waits until `offset` is in the window; `false` when the delivery has ended.
    fn wait_for(&self, offset: u64) -> bool {
        let mut delivered = self.delivered.lock();
        while delivered.saturating_add(self.bytes) <= offset {
            self.moved.wait(&mut delivered);
        }
        *delivered != u64::MAX
    }

    fn move_to(&self, offset: u64) {
        *self.delivered.lock() = offset;
        self.moved.notify_all();
    }
}

/// The calling thread's side: target and progress.
struct Delivery<'a> {
    target: &'a mut dyn RestoreTarget,
    progress: &'a mut dyn FnMut(Progress),
    total: u64,
    state: &'a mut RestoreState,
}

impl Delivery<'_> {
    fn take(&mut self, piece: &Piece) -> Result<()> {
        let length = piece.end - piece.offset;
        // What a piece that fails has written counts when it is written whole.
        let mut restored = self.state.restored;
        match &piece.data {
            Some(data) => write_chunk(self.target, piece.offset, &data[..to_len(length)], &mut restored)?,
            None => zero(self.target, piece.offset, length, &mut restored)?,
        }
        *self.state = RestoreState { next: piece.end, restored };
        (self.progress)(Progress { done: piece.end, total: self.total });
        Ok(())
    }
}

/// Writes the runs of blocks that hold data and zeroes the others.
fn write_chunk(
    target: &mut dyn RestoreTarget,
    offset: u64,
    chunk: &[u8],
    restored: &mut Restored,
) -> Result<()> {
    let mut from = 0;
    while from < chunk.len() {
        let is_zero = |at: usize| all_zero(&chunk[at..chunk.len().min(at + BLOCK_LEN)]);
        let kind = is_zero(from);
        let mut to = from;
        while to < chunk.len() && is_zero(to) == kind {
            to = chunk.len().min(to + BLOCK_LEN);
        }
        let at = offset + len_u64(from);
        if kind {
            zero(target, at, len_u64(to - from), restored)?;
        } else {
            target.write(at, &chunk[from..to]).map_err(|error| target_failed("write", error))?;
            restored.data_bytes += len_u64(to - from);
        }
        from = to;
    }
    Ok(())
}

fn zero(target: &mut dyn RestoreTarget, offset: u64, length: u64, restored: &mut Restored) -> Result<()> {
    restored.zero_bytes += length;
    target.zero(offset, length).map_err(|error| target_failed("zero", error))
}

/// A failure of the target. One that is full says nothing of the space of the store.
fn target_failed(operation: &'static str, source: io::Error) -> Error {
    Error::Io { operation, target: "the target".to_owned(), source }
}
