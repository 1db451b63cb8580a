//! Where the lines of a replay through a tap go: a file that stands for the production disk, and then the tap.

use super::{super::protocol::TapText, Sink};
use crate::{
    exit::{Failure, Outcome},
    image::stamp_of,
    interrupt::Interrupt,
};
use cdp_core::{
    ResyncSchedule, SourceReader, SourceStamp, SourceState, Store, Tap, TapOptions, Volume, trace::TraceLine,
    units::Seq,
};
use rustix::fs::FallocateFlags;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Pause between two looks at a tap that is not whole.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bytes in the pool above which a replay that nothing slows down waits, so that it measures and does not overrun.
const POOL_BYTES_MAX: u64 = 32 << 20;
/// Bytes of captured writes between two looks at the pool.
const PACE_BYTES: u64 = 1 << 20;
/// Zeroes written at a time where a hole cannot be punched.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The production disk: a raw image or a device.
struct SourceFile(File);

impl SourceReader for SourceFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        stamp_of(&self.0)
    }
}

/// A tap with its source.
pub struct Tapped {
    tap: Tap,
    volume: Volume,
    named: bool,
    source: Arc<SourceFile>,
    paced: bool,
    wait: bool,
    /// For the schedule, whether it follows the latency of the source.
    store: Store,
    measures: bool,
    since_look: u64,
}

impl Tapped {
    /// Puts a tap on a volume and waits until it captures whole. `named`: the lines may name other volumes.
    pub fn begin(
        store: &Store,
        volume: Volume,
        named: bool,
        request: &TapText,
        interrupt: &Interrupt,
    ) -> Outcome<Self> {
        let (file, fresh) = open_source(&request.source, volume.bytes())?;
        let source = Arc::new(SourceFile(file));
        let untouched =
            volume.snapshot(store.newest().seq).is_ok_and(|now| matches!(now.next_data(0), Ok(None)));
        let state = if fresh && untouched { SourceState::Equal } else { SourceState::Unknown };
        // Its writes are dated by the trace, which goes on from what the store holds.
        let time = Some(store.newest().time);
        let options = TapOptions { source: state, time, ..TapOptions::default() };
        store.set_resync_schedule(schedule_of(request))?;
        let tap = store.tap(volume.name(), source.clone(), options)?;
        let tapped = Self {
            tap,
            volume,
            named,
            source,
            paced: request.throttle.is_none(),
            wait: request.wait,
            store: store.clone(),
            measures: request.resync_latency_ns.is_some(),
            since_look: 0,
        };
        tapped.wait_whole(interrupt)?;
        Ok(tapped)
    }

    /// Writes to the source, which is the production of a replay.
    fn write_source(&self, data: &[u8], offset: u64) -> Outcome {
        let began = Instant::now();
        self.source.0.write_all_at(data, offset).map_err(source_failed)?;
        if self.measures {
            self.store.note_production_latency(began.elapsed());
        }
        Ok(())
    }

    fn wait_whole(&self, interrupt: &Interrupt) -> Outcome {
        while !self.tap.is_whole() {
            interrupt.check().map_err(|_| Failure::new("interrupted"))?;
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn pace(&mut self, bytes: u64) {
        self.since_look += bytes;
        if !self.paced || self.since_look < PACE_BYTES {
            return;
        }
        self.since_look = 0;
        while self.tap.stats().pool_bytes > POOL_BYTES_MAX && self.tap.is_whole() {
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn zero_source(&self, offset: u64, length: u64) -> Outcome {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.source.0, hole, offset, length).is_ok() {
            return Ok(());
        }
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let len = (end - at).min(ZEROES.len() as u64);
            let zeroes = &ZEROES[..usize::try_from(len).unwrap_or(ZEROES.len())];
            self.source.0.write_all_at(zeroes, at).map_err(source_failed)?;
            at += len;
        }
        Ok(())
    }
}

/// When and how fast the volume is made whole.
fn schedule_of(request: &TapText) -> ResyncSchedule {
    ResyncSchedule {
        delay: Duration::from_nanos(request.resync_delay_ns.unwrap_or(0)),
        bytes_per_second_max: request.resync_rate,
        latency_max: request.resync_latency_ns.map(Duration::from_nanos),
        ..ResyncSchedule::default()
    }
}

impl Sink for Tapped {
    fn write(&mut self, line: &TraceLine, offset: u64, data: &[u8]) -> Outcome<Option<Seq>> {
        self.check_range(line, offset, data.len() as u64)?;
        self.write_source(data, offset)?;
        self.tap.capture_at(offset, data, line.time)?;
        self.pace(data.len() as u64);
        Ok(None)
    }

    fn zero(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome<Option<Seq>> {
        self.check_range(line, offset, length)?;
        self.zero_source(offset, length)?;
        self.tap.write_zeroes(offset, length, line.time)?;
        Ok(None)
    }

    fn discard(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome<Option<Seq>> {
        self.check_range(line, offset, length)?;
        self.zero_source(offset, length)?;
        self.tap.discard(offset, length, line.time)?;
        Ok(None)
    }

    fn flush(&mut self, line: &TraceLine) -> Outcome {
        self.check(line)?;
        self.source.0.sync_data().map_err(source_failed)
    }

    fn check(&mut self, line: &TraceLine) -> Outcome {
        if self.named && *line.volume != *self.volume.name() {
            return Err(Failure::new(format!(
                "the tap is on volume {:?} and the line is for {:?}; --volume NAME sends all lines to one volume",
                self.volume.name(),
                &*line.volume
            )));
        }
        Ok(())
    }

    /// Waits until the volume is whole again when that was asked for, and takes the tap off.
    fn end(self: Box<Self>, interrupt: &Interrupt) -> Outcome {
        let waited = if self.wait { self.wait_whole(interrupt) } else { Ok(()) };
        self.source.0.sync_data().map_err(source_failed)?;
        self.tap.detach()?;
        // It belongs to the store, which may have an owner that goes on.
        self.store.set_resync_schedule(ResyncSchedule::default())?;
        waited
    }
}

impl Tapped {
    /// The source is written first, so its range is checked before.
    fn check_range(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome {
        self.check(line)?;
        if offset.checked_add(length).is_none_or(|end| end > self.volume.bytes()) {
            let volume_bytes = self.volume.bytes();
            return Err(cdp_core::Error::OutOfRange { offset, length, volume_bytes }.into());
        }
        Ok(())
    }
}

fn source_failed(error: io::Error) -> Failure {
    Failure::new(format!("the source: {error}"))
}

/// Opens the source, and says whether it was made here. A file of no length is made as large as the volume.
fn open_source(path: &Path, bytes: u64) -> Outcome<(File, bool)> {
    let failed = |error: io::Error| Failure::io("open", path, &error);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.map_err(failed)?;
    let is_file = file.metadata().map_err(failed)?.is_file();
    let found = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(failed)?;
    if found == 0 && is_file {
        file.set_len(bytes).map_err(failed)?;
        return Ok((file, true));
    }
    if found != bytes {
        return Err(Failure::new(format!(
            "the source {} has {found} bytes and the volume {bytes}; they must be of one size",
            path.display()
        )));
    }
    Ok((file, false))
}
