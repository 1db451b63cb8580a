//! An `io_uring` for the reads of one call.
//!
//! Invariant *none left*: [`Ring::read`] returns only when the system has no request any more, so that no buffer is written to after its
//! borrow has ended. A ring that met an error is not used again.

use super::batch::BatchRead;
use io_uring::{IoUring, opcode, types::Fd};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    thread,
    time::Duration,
};

/// Requests in flight at most.
const DEPTH: u32 = 128;
/// How often is looked for requests that the system still has, after it has refused to be waited for.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// An `io_uring` without any request in flight.
pub(super) struct Ring(IoUring);

impl Ring {
    /// A new one.
    ///
    /// # Errors
    /// Those of the system, among them that it has none or forbids it.
    pub(super) fn new() -> io::Result<Self> {
        // Completions are taken in while they are waited for, and need not interrupt the thread.
        let quiet = IoUring::builder().setup_coop_taskrun().build(DEPTH);
        quiet.or_else(|_| IoUring::new(DEPTH)).map(Self)
    }

    /// Reads, and notes which reads filled their buffer. `filled` is as long as the batch.
    ///
    /// # Errors
    /// The system refused to go on. What is noted as filled is.
    pub(super) fn read(&mut self, batch: &mut [BatchRead<'_>], filled: &mut [bool]) -> io::Result<()> {
        for (batch, filled) in batch.chunks_mut(DEPTH as usize).zip(filled.chunks_mut(DEPTH as usize)) {
            // Asked for before anything is queued: an extent of a host may panic.
            let files: Vec<Option<RawFd>> =
                batch.iter().map(|read| read.extent.file().map(|file| file.as_raw_fd())).collect();
            let queued = self.queue(batch, &files);
            let asked = self.wait(queued, batch, filled);
            asked?;
        }
        Ok(())
    }

    /// Queues a read for each that has a file. Returns how many.
    fn queue(&mut self, batch: &mut [BatchRead<'_>], files: &[Option<RawFd>]) -> usize {
        let mut queue = self.0.submission();
        let mut queued = 0;
        for ((at, read), file) in (0u64..).zip(batch).zip(files) {
            let (Some(file), Ok(length)) = (file, u32::try_from(read.buf.len())) else { continue };
            let request = opcode::Read::new(Fd(*file), read.buf.as_mut_ptr(), length);
            let request = request.offset(read.offset).build().user_data(at);
            // SAFETY: buffer and file are borrowed for the whole of `Ring::read`, which ends only when none is left in flight.
            #[allow(unsafe_code)]
            let pushed = unsafe { queue.push(&request) };
            if pushed.is_err() {
                break;
            }
            queued += 1;
        }
        queued
    }

    /// Submits what is queued and waits until all of it is done.
    fn wait(&mut self, queued: usize, batch: &[BatchRead<'_>], filled: &mut [bool]) -> io::Result<()> {
        let (mut submitted, mut done) = (0, 0);
        while done < queued {
            match self.0.submit_and_wait(queued - done) {
                Ok(taken) => submitted += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What it has not taken stays in the queue, which ends with the ring.
                    while done < submitted {
                        done += self.collect(batch, filled);
                        thread::sleep(LOOK_AGAIN);
                    }
                    return Err(error);
                }
            }
            done += self.collect(batch, filled);
        }
        Ok(())
    }

    /// Takes what is done. Returns how many.
    fn collect(&mut self, batch: &[BatchRead<'_>], filled: &mut [bool]) -> usize {
        let mut done = 0;
        for completion in self.0.completion() {
            done += 1;
            let at = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            if let (Some(read), Some(filled)) = (batch.get(at), filled.get_mut(at)) {
                *filled = usize::try_from(completion.result()) == Ok(read.buf.len());
            }
        }
        done
    }
}
