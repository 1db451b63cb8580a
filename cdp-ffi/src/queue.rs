//! Submit and poll: reads and writes of a volume for hosts whose threads may not block.
//!
//! A request waits in a bounded row until a thread takes it: one that the queue was asked to start, or one of the host in
//! [`cdp_queue_run`]. What it came to waits in a second row until it is polled. Requests and answers together never exceed the depth.

use crate::{
    arguments::{check_flags, check_reserved, sized},
    callback::{Userdata, without_calls},
    failure::{Failure, Outcome},
    guard::{caught, guard, guard_status},
    handle::{Family, get, kind, put},
    status::{CDP_END, CDP_ERR_BUSY, CDP_ERR_PANIC, CDP_OK, cdp_status},
    types::cdp_free_userdata,
    volume::{CDP_WRITE_FUA, cdp_volume, finish},
};
use cdp_core::{Volume, units::Seq};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    ffi::c_void,
    mem::size_of,
    slice,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A row of requests to one volume.
pub struct cdp_queue {
    _private: [u8; 0],
}
kind!(cdp_queue, 12, "queue", Queue);

/// Most requests and answers of a queue.
const DEPTH_MAX: u32 = 4096;
/// Most threads of a queue.
const THREADS_MAX: u32 = 64;

/// How often who waits for an answer looks whether the store was closed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a queue is set up.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_queue_options {
    /// sizeof(cdp_queue_options).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Requests and answers that it holds, at most 4096. 0: 128.
    pub depth: u32,
    /// Threads that it starts, at most 64. 0: none, and the host calls cdp_queue_run on threads of its own.
    pub threads: u32,
    /// Called from the thread that carried a request out, when there is an answer and there was none before; must not call the library or
    /// unwind. For instance a write to an eventfd. NULL: nobody is told.
    pub notify: Option<unsafe extern "C" fn(userdata: *mut c_void)>,
    /// Passed to notify.
    pub userdata: *mut c_void,
    /// Called exactly once, when notify is not called any more. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_queue_options, 40);

/// Fill buf from offset.
pub const CDP_REQUEST_READ: u32 = 1;
/// Write buf at offset.
pub const CDP_REQUEST_WRITE: u32 = 2;
/// Write zeroes over a range.
pub const CDP_REQUEST_WRITE_ZEROES: u32 = 3;
/// Discard a range.
pub const CDP_REQUEST_DISCARD: u32 = 4;
/// Make durable what was answered before this request was submitted.
pub const CDP_REQUEST_FLUSH: u32 = 5;

/// A request.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_request {
    /// sizeof(cdp_request).
    pub struct_size: u32,
    /// CDP_REQUEST_*.
    pub op: u32,
    /// CDP_WRITE_FUA for writes, zeroes and discards.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Given back with the answer.
    pub tag: u64,
    /// As for the call of the same name; 0 for CDP_REQUEST_FLUSH.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// The buffer of a read or a write, which belongs to the library until the answer is polled; else NULL.
    pub buf: *mut c_void,
}
sized!(cdp_request, 48);

/// What a request came to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cdp_answer {
    /// That of the request.
    pub tag: u64,
    /// The seq of a write, or up to which a flush has made everything durable; else 0.
    pub seq: u64,
    /// CDP_OK or why it failed.
    pub status: cdp_status,
    /// The errno of the operating system or of a callback of the host, or 0.
    pub os_errno: i32,
}

/// A request with its buffer.
struct Job(cdp_request);

// SAFETY: the header gives the buffer to the library until the answer is polled.
unsafe impl Send for Job {}

#[derive(Default)]
struct Rows {
    waiting: VecDeque<Job>,
    /// Requests that a thread is at.
    begun: usize,
    answers: VecDeque<cdp_answer>,
    closed: bool,
}

struct Shared {
    volume: Volume,
    family: Arc<Family>,
    depth: usize,
    rows: Mutex<Rows>,
    /// There is a request, or the queue was closed.
    submitted: Condvar,
    /// There is an answer.
    answered: Condvar,
    notify: Option<(unsafe extern "C" fn(*mut c_void), Userdata)>,
}

/// A queue and its threads.
pub struct Queue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // Requests catch their panics; the loop around them has none.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn close(&self) {
        self.rows.lock().closed = true;
        self.submitted.notify_all();
        self.answered.notify_all();
    }

    /// Takes the next request; `wait`: until there is one or the queue is closed.
    fn take(&self, wait: bool) -> Option<Job> {
        let mut rows = self.rows.lock();
        loop {
            if rows.closed {
                return None;
            }
            if let Some(job) = rows.waiting.pop_front() {
                rows.begun += 1;
                return Some(job);
            }
            if !wait {
                return None;
            }
            self.submitted.wait(&mut rows);
        }
    }

    /// Carries out a request and puts its answer into the row.
    fn carry_out(&self, job: &Job) {
        let outcome = caught(|| self.request(&job.0));
        let (seq, status, os_errno) = match outcome {
            Ok(seq) => (seq.get(), CDP_OK, 0),
            Err(failure) => (0, failure.status, failure.errno),
        };
        if status == CDP_ERR_PANIC {
            self.family.poison();
        }
        let first = {
            let mut rows = self.rows.lock();
            rows.begun -= 1;
            rows.answers.push_back(cdp_answer { tag: job.0.tag, seq, status, os_errno });
            rows.answers.len() == 1
        };
        self.answered.notify_all();
        if let Some((notify, userdata)) = self.notify.as_ref().filter(|_| first) {
            // SAFETY: a function of the host with its own userdata.
            without_calls(|| unsafe { notify(userdata.get()) });
        }
    }

    fn request(&self, request: &cdp_request) -> Outcome<Seq> {
        let (volume, offset) = (&self.volume, request.offset);
        let seq = match request.op {
            CDP_REQUEST_READ => {
                let len = checked_len(request)?;
                // SAFETY: checked at submission; writable and the library's until the answer is polled.
                let to = unsafe { slice::from_raw_parts_mut(request.buf.cast::<u8>(), len) };
                volume.read(offset, to)?;
                return Ok(Seq::ZERO);
            }
            CDP_REQUEST_WRITE => {
                let len = checked_len(request)?;
                // SAFETY: checked at submission; readable and the library's until the answer is polled.
                volume.write(offset, unsafe { slice::from_raw_parts(request.buf.cast::<u8>(), len) })?
            }
            CDP_REQUEST_WRITE_ZEROES => volume.write_zeroes(offset, request.len, None)?,
            CDP_REQUEST_DISCARD => volume.discard(offset, request.len, None)?,
            _ => return Ok(volume.flush()?),
        };
        finish(volume, seq, request.flags)?;
        Ok(seq)
    }
}

fn checked_len(request: &cdp_request) -> Outcome<usize> {
    usize::try_from(request.len).map_err(|_| Failure::argument("the length is beyond the address space"))
}

/// Opens a queue to a volume; options may be NULL. Close it with cdp_queue_close. [any thread; waits for the start of threads]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_queue_open(
    volume: *mut cdp_volume,
    options: *const cdp_queue_options,
    queue_out: *mut *mut cdp_queue,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("queue_out", queue_out);
        let given = caller.options_or_default(options)?;
        let userdata = Userdata::new(given.userdata, given.free_userdata);
        let out = out?;
        check_flags(given.flags, 0)?;
        if given.depth > DEPTH_MAX || given.threads > THREADS_MAX {
            return Err(Failure::argument(format!(
                "a queue has a depth of at most {DEPTH_MAX} and at most {THREADS_MAX} threads"
            )));
        }
        let held = get(volume)?;
        let depth = if given.depth == 0 { 128 } else { given.depth as usize };
        let shared = Arc::new(Shared {
            volume: (*held).clone(),
            family: held.family().clone(),
            depth,
            rows: Mutex::default(),
            submitted: Condvar::new(),
            answered: Condvar::new(),
            notify: given.notify.map(|notify| (notify, userdata)),
        });
        let mut queue = Queue { shared: shared.clone(), threads: Vec::new() };
        for number in 0..given.threads {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("cdp-queue-{number}"));
            let thread = thread.spawn(move || {
                while let Some(job) = shared.take(true) {
                    shared.carry_out(&job);
                }
            });
            queue.threads.push(thread.map_err(|error| Failure::io("start a thread", &error))?);
        }
        out.put(put(queue, Some(held.family()))?);
        Ok(())
    })
}

/// Hands a request over; the struct is copied. CDP_ERR_BUSY when the queue is full: poll answers first. What is wrong with a range is said by
/// the answer, what is wrong with the request by this call, which then has handed nothing over. Requests are begun in their order and may
/// end in any. [any thread, several at once; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_queue_submit(queue: *mut cdp_queue, request: *const cdp_request) -> cdp_status {
    guard(|caller| {
        let held = get(queue)?;
        let given = caller.options(request)?;
        check_reserved(given.reserved)?;
        let with_buffer = matches!(given.op, CDP_REQUEST_READ | CDP_REQUEST_WRITE);
        match given.op {
            CDP_REQUEST_READ => check_flags(given.flags, 0)?,
            CDP_REQUEST_FLUSH if given.len != 0 || given.offset != 0 => {
                return Err(Failure::argument("a flush has no range"));
            }
            CDP_REQUEST_FLUSH => check_flags(given.flags, 0)?,
            CDP_REQUEST_WRITE | CDP_REQUEST_WRITE_ZEROES | CDP_REQUEST_DISCARD => {
                check_flags(given.flags, CDP_WRITE_FUA)?;
            }
            other => return Err(Failure::argument(format!("{other} is not a request"))),
        }
        if with_buffer {
            let len = checked_len(&given)?;
            if len == 0 {
                return Err(Failure::argument("a length of 0"));
            }
            caller.bytes("buf", given.buf, len)?;
        } else if !given.buf.is_null() {
            return Err(Failure::argument("this request has no buffer"));
        }
        let shared = &held.shared;
        let mut rows = shared.rows.lock();
        if rows.waiting.len() + rows.begun + rows.answers.len() >= shared.depth {
            return Err(Failure::new(CDP_ERR_BUSY, format!("the queue holds {} requests", shared.depth)));
        }
        rows.waiting.push_back(Job(given));
        drop(rows);
        shared.submitted.notify_one();
        Ok(())
    })
}

/// Carries out at most requests_max requests in this thread. CDP_OK: some were; CDP_END: none was waiting. [any thread, several at once; waits
/// for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_queue_run(queue: *mut cdp_queue, requests_max: usize) -> cdp_status {
    guard_status(|_| {
        let held = get(queue)?;
        let mut status = CDP_END;
        for _ in 0..requests_max {
            let Some(job) = held.shared.take(false) else { break };
            held.shared.carry_out(&job);
            status = CDP_OK;
        }
        Ok(status)
    })
}

/// Takes at most count answers, the oldest first; count_out says how many were stored, 0 when there are none. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_queue_poll(
    queue: *mut cdp_queue,
    answers_out: *mut cdp_answer,
    count: usize,
    count_out: *mut usize,
) -> cdp_status {
    guard(|caller| {
        let held = get(queue)?;
        let answers = caller.items_out("answers_out", answers_out, count)?;
        let out = caller.out("count_out", count_out)?;
        let mut rows = held.shared.rows.lock();
        let taken = rows.answers.len().min(count);
        for (index, answer) in rows.answers.drain(..taken).enumerate() {
            answers.put(index, answer);
        }
        out.put(taken);
        Ok(())
    })
}

/// Waits until there is an answer, for timeout_ns at most. CDP_OK: there is one; CDP_END: there is none yet. [any thread]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_queue_wait(queue: *mut cdp_queue, timeout_ns: u64) -> cdp_status {
    guard_status(|_| {
        let held = get(queue)?;
        let shared = &held.shared;
        let until = Instant::now().checked_add(Duration::from_nanos(timeout_ns));
        let mut rows = shared.rows.lock();
        while rows.answers.is_empty() && !rows.closed && !held.family().is_closed() {
            let now = Instant::now();
            let left = until.map_or(LOOK_EVERY, |until| until.saturating_duration_since(now));
            if left.is_zero() {
                break;
            }
            shared.answered.wait_for(&mut rows, left.min(LOOK_EVERY));
        }
        Ok(if rows.answers.is_empty() { CDP_END } else { CDP_OK })
    })
}

/// Gives up the queue and sets the variable to NULL, which it may be already. Requests that were begun are finished, the others are dropped, and
/// no answer can be polled any more. [any thread; waits for what was begun by threads of the queue]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_queue_close(queue: *mut *mut cdp_queue) -> cdp_status {
    guard(|caller| {
        if let Some(held) = caller.close(queue)? {
            // Who waits on another thread holds the queue a moment longer.
            held.shared.close();
        }
        Ok(())
    })
}
