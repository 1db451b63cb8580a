//! A block trace as a load: its writes in their order, as fast as they go, by one producer.
//!
//! The lines of all volumes go to one, and their times are left aside: what is measured is what this machine does with these sizes and
//! places. The trace is read once before, so that a bad line ends the run early and the volume has the right size.

use super::{Bench, Measured, OWN_STORE, Ready, TRACE};
use crate::{
    error::{Context, Error, Result, on_path},
    pages::Pages,
    probe::Rate,
    statistics::Latencies,
};
use cdp_core::{
    CreateOptions, OpenOptions, Store, Volume,
    limits::WRITE_BYTES_MAX,
    trace::{Fill, TraceFormat, TraceLine, TraceOp, TraceReader},
};
use std::{
    fs::File,
    io::BufReader,
    path::Path,
    time::{Duration, Instant},
};

/// Sizes of volumes are multiples of this.
const VOLUME_STEP: u64 = 1 << 20;

/// What a trace holds.
struct Contents {
    format: TraceFormat,
    end: u64,
}

/// The trace that the user named.
pub fn run(bench: &mut Bench<'_>) -> Result<Ready> {
    let path = bench.trace.clone().ok_or_else(|| Error::Skip("no trace was named: --trace FILE".into()))?;
    let contents = look(&path)?;
    let create = CreateOptions { volume: "disk".into(), bytes: contents.end.next_multiple_of(VOLUME_STEP) };
    let store = Store::create(bench.new_storage(OWN_STORE)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let bound = Bound { time: bench.sizes.measure_time * 3, bytes: bench.sizes.sequential_bytes * 2 };
    Ready::new(move || {
        let runner = store.start_runner().when("start its threads")?;
        let volume = store.volume(None).when("find its volume")?;
        let started = Instant::now();
        let replayed = replay(&volume, lines(&path, contents.format)?, bound)?;
        volume.flush().when("flush")?;
        let seconds = started.elapsed().as_secs_f64();
        let stats = store.stats().when("count")?;
        drop((volume, runner));
        store.close().when("close")?;
        let operations = replayed.samples.len() as u64;
        let written = stats.frame_bytes as f64 / replayed.bytes.max(1) as f64;
        Ok(Measured::new(Rate { operations, bytes: replayed.bytes, seconds })
            .with_latencies(&Latencies::new(replayed.samples))
            .with("foreground_bytes_per_source_byte", written)
            .with("whole_trace", f64::from(u8::from(replayed.whole))))
    })
}

/// When a replay ends before its trace does.
#[derive(Clone, Copy)]
struct Bound {
    time: Duration,
    bytes: u64,
}

struct Replayed {
    samples: Vec<u64>,
    bytes: u64,
    whole: bool,
}

fn replay(volume: &Volume, lines: impl Iterator<Item = Result<TraceLine>>, bound: Bound) -> Result<Replayed> {
    let longest = usize::try_from(WRITE_BYTES_MAX).unwrap_or(usize::MAX);
    let mut buffer = Pages::ordinary(longest)?;
    let mut replayed = Replayed { samples: Vec::new(), bytes: 0, whole: true };
    let begun = Instant::now();
    for line in lines {
        let line = line?;
        if begun.elapsed() > bound.time || replayed.bytes > bound.bytes {
            replayed.whole = false;
            break;
        }
        let data = match line.op {
            TraceOp::Write { offset, length } => {
                let length = usize::try_from(length).unwrap_or(longest).min(longest);
                Fill::Random.fill(offset, line.counted, &mut buffer[..length]);
                replayed.bytes += length as u64;
                &buffer[..length]
            }
            _ => &[],
        };
        let started = Instant::now();
        match line.op {
            TraceOp::Write { offset, .. } => volume.write(offset, data).when("write")?,
            TraceOp::Zero { offset, length } => {
                volume.write_zeroes(offset, length, None).when("write zeroes")?
            }
            TraceOp::Discard { offset, length } => volume.discard(offset, length, None).when("discard")?,
            TraceOp::Flush => volume.flush().when("flush")?,
            // The names of a trace are not those of this store.
            TraceOp::Bookmark(_) => continue,
        };
        replayed.samples.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(replayed)
}

fn lines(path: &Path, format: TraceFormat) -> Result<impl Iterator<Item = Result<TraceLine>>> {
    let file = File::open(path).map_err(|error| on_path("open", path, error))?;
    let reader = TraceReader::new(BufReader::with_capacity(1 << 20, file), format);
    Ok(reader.map(|line| line.when("read a trace")))
}

/// Reads all of a trace, in the format that its first line is in.
fn look(path: &Path) -> Result<Contents> {
    let first = |format| -> Result<bool> { Ok(lines(path, format)?.next().is_some_and(|line| line.is_ok())) };
    let format = match (first(TraceFormat::Csv)?, first(TraceFormat::Msr)?) {
        (true, _) => TraceFormat::Csv,
        (false, true) => TraceFormat::Msr,
        (false, false) => {
            // Says what is wrong with the first line as the usual format.
            lines(path, TraceFormat::Csv)?.next().transpose()?;
            return Err(Error::Usage(format!("{} is no {TRACE}: it has no line", path.display())));
        }
    };
    let mut contents = Contents { format, end: 0 };
    for line in lines(path, format)? {
        let end = line?.op.range().map_or(0, |(offset, length)| offset.saturating_add(length));
        contents.end = contents.end.max(end);
    }
    if contents.end == 0 {
        return Err(Error::Usage(format!("{} writes nothing", path.display())));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Goal: both formats are recognised, with the end of their last write; what is neither is refused with its line.
    /// Method: a trace of each, an empty one, and text.
    #[test]
    fn formats_are_recognised_by_their_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let look_at = |text: &str| {
            fs::write(&path, text).unwrap();
            look(&path)
        };
        let csv = look_at("1,a,0,4096\n2,b,8192,4096\n").unwrap();
        assert_eq!((csv.format, csv.end), (TraceFormat::Csv, 12_288));
        let msr = look_at("128166372003061629,usr,0,Write,4096,512,1331\n").unwrap();
        assert_eq!((msr.format, msr.end), (TraceFormat::Msr, 4608));
        for bad in ["", "nonsense\n", "1,a,0,0,flush\n"] {
            assert!(look_at(bad).is_err(), "{bad}");
        }
    }
}
