//! Drives the engine with a trace, inline.
//!
//! Invariant *nothing early*: a trace whose first line lies before the newest write is refused before anything is written.
//! A line that cannot be carried out ends the replay with its number; the lines before it are made durable and stay.

use super::{
    execute::Events,
    protocol::{FillText, FormatText, ReplayRequest},
};
use crate::{
    exit::{Failure, Outcome},
    output::{ReplayDocument, to_float},
};
use cdp_core::{
    Error, NewBookmark, Store, Volume,
    limits::WRITE_BYTES_MAX,
    text::format_time,
    trace::{Fill, TraceFormat, TraceLine, TraceOp, TraceReader},
    units::{Seq, TimeNs},
};
use std::{
    collections::HashMap,
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
    let mut replayer = Replayer::new(store, request)?;
    let started = Instant::now();
    let interrupt = events.interrupt();
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
    let flushed = store.flush();
    let elapsed = started.elapsed().as_secs_f64();
    outcome?;
    flushed?;
    let gaps = store.timeline()?.gaps.len().saturating_sub(gaps_before);
    Ok(replayer.document(elapsed, store.stats()?.stored_bytes, gaps))
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
    targets: Targets<'a>,
    fill: Fill,
    real_time: bool,
    first_time: Option<TimeNs>,
    buf: Vec<u8>,
    writes: u64,
    bytes: u64,
    first_seq: Option<Seq>,
    last_seq: Option<Seq>,
}

impl<'a> Replayer<'a> {
    fn new(store: &'a Store, request: &ReplayRequest) -> Outcome<Self> {
        let target = match (&request.volume, request.format) {
            (Some(name), _) => Some(store.volume(Some(name))?),
            // The lines name no volume, so the rule for commands applies: the first one.
            (None, FormatText::Msr) => Some(store.volume(None)?),
            (None, FormatText::Csv) => None,
        };
        Ok(Self {
            targets: Targets { store, target, volumes: HashMap::new() },
            fill: match request.fill {
                FillText::Stamp => Fill::Stamp,
                FillText::Random => Fill::Random,
                FillText::Zero => Fill::Zero,
            },
            real_time: request.real_time,
            first_time: None,
            buf: Vec::new(),
            writes: 0,
            bytes: 0,
            first_seq: None,
            last_seq: None,
        })
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
                let volume = self.targets.volume(line)?;
                volume.write_at_time(*offset, &self.buf[..length], line.time)?
            }
            TraceOp::Zero { offset, length } => {
                self.targets.volume(line)?.write_zeroes(*offset, *length, Some(line.time))?
            }
            TraceOp::Discard { offset, length } => {
                self.targets.volume(line)?.discard(*offset, *length, Some(line.time))?
            }
            TraceOp::Flush => {
                self.targets.volume(line)?.flush()?;
                return Ok(());
            }
            TraceOp::Bookmark(name) => {
                self.targets.volume(line)?;
                return self.bookmark(name, line.time);
            }
        };
        self.first_seq.get_or_insert(seq);
        self.last_seq = Some(seq);
        self.writes += 1;
        self.bytes += line.op.range().map_or(0, |(_, length)| length);
        Ok(())
    }

    fn bookmark(&self, name: &str, time: TimeNs) -> Outcome {
        let new = NewBookmark { time: Some(time), ..NewBookmark::named(name) };
        self.targets.store.add_bookmark(&new)?;
        Ok(())
    }

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

/// Finds the volume of a line.
struct Targets<'a> {
    store: &'a Store,
    /// Where all lines go, when that was asked for.
    target: Option<Volume>,
    volumes: HashMap<Arc<str>, Volume>,
}

impl Targets<'_> {
    fn volume(&mut self, line: &TraceLine) -> Outcome<&Volume> {
        if let Some(target) = &self.target {
            return Ok(target);
        }
        if !self.volumes.contains_key(&line.volume) {
            let volume = self.store.volume(Some(&line.volume)).map_err(|error| match error {
                Error::NotFound { .. } => Failure::new(format!(
                    "the store has no volume {:?}; --volume NAME sends all lines to one volume",
                    &*line.volume
                )),
                error => error.into(),
            })?;
            self.volumes.insert(Arc::clone(&line.volume), volume);
        }
        Ok(&self.volumes[&line.volume])
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
