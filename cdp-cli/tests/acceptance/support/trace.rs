//! Block traces in the tool's CSV form, and their random making.

use std::fmt::Write as _;
use std::path::Path;

use super::Random;

/// What one line of a trace does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Write { offset: u64, length: u64 },
    Zero { offset: u64, length: u64 },
    Discard { offset: u64, length: u64 },
    Flush,
    Bookmark(String),
}

/// One line of a trace.
#[derive(Clone, Debug)]
pub struct Line {
    pub time: u64,
    pub volume: String,
    pub op: Op,
}

/// The lines of a trace, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub lines: Vec<Line>,
}

impl Op {
    /// Whether the line takes a seq and a stamp number.
    pub fn counted(&self) -> bool {
        !matches!(self, Self::Flush | Self::Bookmark(_))
    }
}

impl Trace {
    pub fn push(&mut self, time: u64, volume: &str, op: Op) {
        self.lines.push(Line { time, volume: volume.to_owned(), op });
    }

    pub fn write(&mut self, time: u64, volume: &str, offset: u64, length: u64) {
        self.push(time, volume, Op::Write { offset, length });
    }

    /// How many lines take a seq.
    pub fn counted(&self) -> u64 {
        u64::try_from(self.lines.iter().filter(|line| line.op.counted()).count()).expect("a count")
    }

    /// How many bytes the write lines carry.
    pub fn written_bytes(&self) -> u64 {
        let length = |op: &Op| if let Op::Write { length, .. } = op { *length } else { 0 };
        self.lines.iter().map(|line| length(&line.op)).sum()
    }

    /// The trace as text. Whether a write names its op is varied, for both spellings are valid.
    pub fn csv(&self) -> String {
        let mut text = String::new();
        for (number, Line { time, volume, op }) in self.lines.iter().enumerate() {
            let written = match op {
                Op::Write { offset, length } if number % 2 == 0 => {
                    writeln!(text, "{time},{volume},{offset},{length}")
                }
                Op::Write { offset, length } => writeln!(text, "{time},{volume},{offset},{length},write"),
                Op::Zero { offset, length } => writeln!(text, "{time},{volume},{offset},{length},zero"),
                Op::Discard { offset, length } => writeln!(text, "{time},{volume},{offset},{length},discard"),
                Op::Flush => writeln!(text, "{time},{volume},0,0,flush"),
                Op::Bookmark(name) => writeln!(text, "{time},{volume},0,0,bookmark:{name}"),
            };
            written.expect("a string grows");
        }
        text
    }

    pub fn save(&self, path: &Path) {
        std::fs::write(path, self.csv()).expect("save the trace");
    }

    /// Cuts the trace after its first `counted` counted lines and returns the rest.
    pub fn split_after_counted(&self, counted: u64) -> (Trace, Trace) {
        let mut seen = 0;
        let (mut before, mut after) = (Trace::default(), Trace::default());
        for line in &self.lines {
            let target = if seen < counted { &mut before } else { &mut after };
            seen += u64::from(line.op.counted());
            target.lines.push(line.clone());
        }
        (before, after)
    }
}

/// What a random trace looks like.
pub struct Shape {
    /// Name and size of each volume that is written to.
    pub volumes: Vec<(String, u64)>,
    /// How many lines.
    pub lines: usize,
    /// The longest write; sizes are log-uniform from 512.
    pub write_most: u64,
    /// Chances of the other kinds of line, of a hundred.
    pub zero_percent: u64,
    pub discard_percent: u64,
    pub flush_percent: u64,
    pub bookmark_percent: u64,
    /// Chance that a line has the time of the line before it.
    pub same_time_percent: u64,
    /// The time of the first line.
    pub start: u64,
}

impl Shape {
    /// Every kind of line on one volume named `disk`.
    pub fn mixed(disk_bytes: u64, lines: usize) -> Self {
        Self {
            volumes: vec![("disk".to_owned(), disk_bytes)],
            lines,
            write_most: 64 << 10,
            zero_percent: 6,
            discard_percent: 6,
            flush_percent: 3,
            bookmark_percent: 1,
            same_time_percent: 30,
            start: super::times::START,
        }
    }

    pub fn generate(&self, random: &mut Random) -> Trace {
        let mut trace = Trace::default();
        let mut time = self.start;
        for number in 0..self.lines {
            if number > 0 && !random.percent(self.same_time_percent) {
                // From one nanosecond to hours between two lines: every scale must be kept exactly.
                time += 1 + random.next() % (1 << random.below(42));
            }
            let (volume, bytes) = &self.volumes[super::index(random.below(self.volumes.len() as u64))];
            trace.push(time, volume, self.op(number, *bytes, random));
        }
        trace
    }

    fn op(&self, number: usize, bytes: u64, random: &mut Random) -> Op {
        let mut dice = random.below(100);
        let mut falls = |chance: u64| {
            let hit = dice < chance;
            dice = dice.saturating_sub(chance);
            if hit {
                dice = 100;
            }
            hit
        };
        if falls(self.zero_percent) {
            let (offset, length) = range(random, bytes, bytes);
            Op::Zero { offset, length }
        } else if falls(self.discard_percent) {
            let (offset, length) = range(random, bytes, bytes);
            Op::Discard { offset, length }
        } else if falls(self.flush_percent) {
            Op::Flush
        } else if falls(self.bookmark_percent) {
            Op::Bookmark(format!("line-{number}"))
        } else {
            let (offset, length) = range(random, bytes, self.write_most);
            Op::Write { offset, length }
        }
    }
}

/// An aligned range of at most `most` bytes inside a volume; half of them are aligned to 4 KiB, as most real ones.
fn range(random: &mut Random, bytes: u64, most: u64) -> (u64, u64) {
    let length = random.sectors_log_uniform(most.min(bytes));
    let sectors = (bytes - length) / 512;
    let mut sector = random.between(0, sectors);
    if random.percent(50) {
        sector -= sector % 8;
    }
    (sector * 512, length)
}
