//! Drives the engine with a trace: [`inline`], or through a tap beside a file that stands for the production disk ([`tapped`]).
//!
//! Invariant *nothing early*: a trace whose first line lies before the newest write is refused before anything is written.
//! A line that cannot be carried out ends the replay with its number; the lines before it are made durable and stay.

mod inline;
mod tapped;

use inline::Inline;
use tapped::Tapped;

use super::{
    execute::Events,
    protocol::{FillText, FormatText, ReplayRequest},
};
use crate::{
    exit::{Failure, Outcome},
    output::{ReplayDocument, to_float},
};
use cdp_core::{
    Coalescing, NewBookmark, Store, Volume,
    limits::WRITE_BYTES_MAX,
    text::format_time,
    trace::{Fill, TraceFormat, TraceLine, TraceOp, TraceReader},
    units::{Seq, TimeNs},
};
use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes of the trace that are read at a time.
const READ_BYTES: usize = 256 << 10;
/// Lines between two reports of progress.
const LINES_A_PROGRESS: u64 = 256;
/// How long a pause in real time lasts at most before the interrupt is looked at again.
const NAP: Duration = Duration::from_millis(50);

/// Replays a trace.
///
/// # Errors
/// `Failed` with the number of the line.
pub fn replay(store: &Store, request: &ReplayRequest, events: &mut dyn Events) -> Outcome<ReplayDocument> {
    let path = &request.trace;
    let file = File::open(path).map_err(|source| Failure::io("open", path, &source))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::new(format!("{} is a directory, not a trace", path.display())));
    }
    let trace_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let read_bytes = Arc::new(AtomicU64::new(0));
    let counted = CountedFile { file, read_bytes: Arc::clone(&read_bytes) };
    let format = match request.format {
        FormatText::Csv => TraceFormat::Csv,
        FormatText::Msr => TraceFormat::Msr,
    };
    let mut lines = TraceReader::new(BufReader::with_capacity(READ_BYTES, counted), format).peekable();
    let gaps_before = store.timeline()?.gaps.len();

    if let Some(Ok(first)) = lines.peek() {
        refuse_early(store, first, path)?;
    }
    let interrupt = events.interrupt();
    let first_volume = lines.peek().and_then(|line| line.as_ref().ok()).map(|line| Arc::clone(&line.volume));
    let mut sink: Box<dyn Sink> = match &request.tap {
        None => Box::new(Inline::new(store, target_of(store, request)?)),
        Some(tap) => {
            let (target, named) = match (target_of(store, request)?, first_volume) {
                (Some(target), _) => (target, false),
                (None, Some(name)) => (store.volume(Some(&name))?, true),
                (None, None) => (store.volume(None)?, true),
            };
            Box::new(Tapped::begin(store, target, named, tap, &interrupt)?)
        }
    };
    let coalescing_before = store.coalescing();
    if let Some(interval_ns) = request.interval_ns {
        store.set_coalescing(Coalescing::IntervalNs(interval_ns))?;
    }
    let first_captured = store.newest().seq.next();
    let mut replayer = Replayer::new(store, request, &mut *sink);
    let started = Instant::now();
    let mut outcome = Ok(());
    for line in lines {
        let number = line.as_ref().map_or(0, |line| line.line_number);
        let done = line.map_err(Failure::from).and_then(|line| {
            interrupt.check().map_err(|_| Failure::new("interrupted"))?;
            replayer.wait_for(&line, started, &interrupt)?;
            replayer.line(&line)
        });
        if let Err(failure) = done {
            // The reader names the line itself.
            let failure = if number == 0 { failure } else { failure.context(format!("line {number}")) };
            outcome = Err(failure.context(path.display()));
            break;
        }
        if number.is_multiple_of(LINES_A_PROGRESS) {
            events.progress(read_bytes.load(Ordering::Relaxed), trace_bytes);
        }
    }
    let counts = replayer.counts;
    let flushed = store.flush().and_then(|_| store.set_coalescing(coalescing_before));
    let ended = sink.end(&interrupt);
    let elapsed = started.elapsed().as_secs_f64();
    outcome?;
    flushed?;
    ended?;
    let gaps = store.timeline()?.gaps.len().saturating_sub(gaps_before);
    let counts = match &request.tap {
        None => counts,
        // A tap gives seqs when it takes writes over.
        Some(_) => {
            let last = store.newest().seq;
            let some = last >= first_captured;
            Counts { first_seq: some.then_some(first_captured), last_seq: some.then_some(last), ..counts }
        }
    };
    Ok(counts.document(elapsed, store.stats()?.stored_bytes, gaps))
}

/// The volume that all lines go to, if there is one.
fn target_of(store: &Store, request: &ReplayRequest) -> Outcome<Option<Volume>> {
    Ok(match (&request.volume, request.format) {
        (Some(name), _) => Some(store.volume(Some(name))?),
        // The lines name no volume, so the rule for commands applies: the first one.
        (None, FormatText::Msr) => Some(store.volume(None)?),
        (None, FormatText::Csv) => None,
    })
}

/// Where lines go.
trait Sink {
    /// Writes data; returns the seq it took, where that is known.
    fn write(&mut self, line: &TraceLine, offset: u64, data: &[u8]) -> Outcome<Option<Seq>>;
    /// Writes zeroes.
    fn zero(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome<Option<Seq>>;
    /// Discards.
    fn discard(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome<Option<Seq>>;
    /// Makes what was written durable where the application would.
    fn flush(&mut self, line: &TraceLine) -> Outcome;
    /// Checks the volume of a line.
    fn check(&mut self, line: &TraceLine) -> Outcome;
    /// The last line is done.
    fn end(self: Box<Self>, interrupt: &crate::interrupt::Interrupt) -> Outcome;
}

/// What was replayed.
#[derive(Clone, Copy, Default)]
struct Counts {
    writes: u64,
    bytes: u64,
    first_seq: Option<Seq>,
    last_seq: Option<Seq>,
}

/// Refuses a trace that begins before the newest write of the store.
fn refuse_early(store: &Store, first: &TraceLine, path: &Path) -> Outcome {
    let newest = store.newest();
    if first.time < newest.time {
        return Err(Failure::new(format!(
            "{}: line {}: the trace starts at {}, before the newest write of the store at {}; nothing was written",
            path.display(),
            first.line_number,
            format_time(first.time),
            format_time(newest.time)
        )));
    }
    Ok(())
}

/// Carries out lines.
struct Replayer<'a> {
    store: &'a Store,
    sink: &'a mut dyn Sink,
    fill: Fill,
    real_time: bool,
    first_time: Option<TimeNs>,
    buf: Vec<u8>,
    counts: Counts,
}

impl<'a> Replayer<'a> {
    fn new(store: &'a Store, request: &ReplayRequest, sink: &'a mut dyn Sink) -> Self {
        Self {
            store,
            sink,
            fill: match request.fill {
                FillText::Stamp => Fill::Stamp,
                FillText::Random => Fill::Random,
                FillText::Zero => Fill::Zero,
            },
            real_time: request.real_time,
            first_time: None,
            buf: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Waits until the time of the line has come, when the replay keeps the pace of the trace.
    fn wait_for(
        &mut self,
        line: &TraceLine,
        started: Instant,
        interrupt: &crate::interrupt::Interrupt,
    ) -> Outcome {
        let first = *self.first_time.get_or_insert(line.time);
        if !self.real_time {
            return Ok(());
        }
        let due = Duration::from_nanos(line.time.get().saturating_sub(first.get()));
        while let Some(left) = due.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            interrupt.check().map_err(|_| Failure::new("interrupted"))?;
            thread::sleep(left.min(NAP));
        }
        Ok(())
    }

    fn line(&mut self, line: &TraceLine) -> Outcome {
        let seq = match &line.op {
            TraceOp::Write { offset, length } => {
                let length = usize::try_from(*length).map_err(|_| Failure::new("the write is too long"))?;
                if self.buf.len() < length {
                    let most = usize::try_from(WRITE_BYTES_MAX).unwrap_or(length);
                    self.buf.resize(length.next_power_of_two().min(most).max(length), 0);
                }
                self.fill.fill(*offset, line.counted, &mut self.buf[..length]);
                self.sink.write(line, *offset, &self.buf[..length])?
            }
            TraceOp::Zero { offset, length } => self.sink.zero(line, *offset, *length)?,
            TraceOp::Discard { offset, length } => self.sink.discard(line, *offset, *length)?,
            TraceOp::Flush => return self.sink.flush(line),
            TraceOp::Bookmark(name) => {
                self.sink.check(line)?;
                return self.bookmark(name, line.time);
            }
        };
        self.counts.first_seq = self.counts.first_seq.or(seq);
        self.counts.last_seq = seq.or(self.counts.last_seq);
        self.counts.writes += 1;
        self.counts.bytes += line.op.range().map_or(0, |(_, length)| length);
        Ok(())
    }

    fn bookmark(&self, name: &str, time: TimeNs) -> Outcome {
        let new = NewBookmark { time: Some(time), ..NewBookmark::named(name) };
        self.store.add_bookmark(&new)?;
        Ok(())
    }
}

impl Counts {
    fn document(&self, seconds: f64, stored_bytes: u64, gaps: usize) -> ReplayDocument {
        let rate = |count: u64| if seconds > 0.0 { to_float(count) / seconds } else { 0.0 };
        ReplayDocument {
            writes: self.writes,
            bytes: self.bytes,
            first_seq: self.first_seq.map(Seq::get),
            last_seq: self.last_seq.map(Seq::get),
            seconds,
            writes_per_s: rate(self.writes),
            bytes_per_s: rate(self.bytes),
            stored_bytes,
            gaps: u64::try_from(gaps).unwrap_or(u64::MAX),
        }
    }
}

/// A file that counts what is read from it.
struct CountedFile {
    file: File,
    read_bytes: Arc<AtomicU64>,
}

impl Read for CountedFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buf)?;
        self.read_bytes.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        Ok(read)
    }
}
