//! The theorem of the dirty map on the simulated disk: after any crash the claim contains every block whose content is not known to be durable
//! at the consumer. And the tests of the tests: each deliberate defect must be found.

#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    Error, Result,
    dirty_map::{
        Base, ByteRange, DirtyMap, Granularity, InResync, MapFile, MapFileOptions, MapOptions, Pin, Shape,
    },
    format::Uuid,
    io::{
        Storage,
        simulated::{AtomicUnit, Call, CrashPolicy, Fault, SimRng, SimulatedConfig, SimulatedStorage},
    },
    sabotage::{DIRTY_MAP_SWITCHES, Sabotage},
    units::ExtentId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

const DEVICE: Uuid = Uuid([7; 16]);
const GRANULARITY: u64 = 4096;

/// What is true: for each block the writes that the consumer does not have.
#[derive(Clone, Debug, Default)]
struct Model {
    missing: BTreeMap<u64, BTreeSet<u64>>,
    in_flight: BTreeSet<u64>,
    next_write: u64,
}

impl Model {
    fn submit(&mut self, range: ByteRange, in_flight: bool) -> u64 {
        let write = self.next_write;
        self.next_write += 1;
        for block in blocks(range) {
            self.missing.entry(block).or_default().insert(write);
        }
        if in_flight {
            self.in_flight.insert(write);
        }
        write
    }

    fn done(&mut self, write: u64, range: ByteRange, durable_everywhere: bool) {
        self.in_flight.remove(&write);
        if durable_everywhere {
            blocks(range).for_each(|block| self.forget(block, &[write].into()));
        }
    }

    fn forget(&mut self, block: u64, writes: &BTreeSet<u64>) {
        if let Some(missing) = self.missing.get_mut(&block) {
            missing.retain(|write| !writes.contains(write));
        }
    }

    /// What a read of a block brings to the consumer: the writes that had ended before it.
    fn read(&self, block: u64) -> BTreeSet<u64> {
        let missing = self.missing.get(&block).into_iter().flatten();
        missing.filter(|write| !self.in_flight.contains(write)).copied().collect()
    }

    /// Blocks that differ; those with writes in flight alone only when `in_flight`.
    fn differing(&self, in_flight: bool) -> impl Iterator<Item = u64> {
        let differs = move |missing: &BTreeSet<u64>| {
            missing.iter().any(|write| in_flight || !self.in_flight.contains(write))
        };
        self.missing.iter().filter(move |(_, missing)| differs(missing)).map(|(block, _)| *block)
    }
}

fn blocks(range: ByteRange) -> std::ops::Range<u64> {
    range.offset / GRANULARITY..range.end().div_ceil(GRANULARITY)
}

fn token_blocks(token: &InResync) -> std::ops::Range<u64> {
    token.first_block()..token.first_block() + token.blocks()
}

/// What one history is made of.
struct World {
    rng: SimRng,
    storage: SimulatedStorage,
    options: MapFileOptions,
    model: Model,
    extent: ExtentId,
    extents: u64,
    bytes: u64,
    /// Generations that the header may name.
    generations: Vec<u64>,
    /// Whether nothing has happened that may make everything dirty.
    exact: bool,
    /// Whether a sync has failed: a hole in the log may come to light much later.
    failed: bool,
    /// Whether a map may be refused.
    rotten: bool,
    log: String,
}

/// What lives until the crash.
struct Life {
    file: MapFile,
    pins: Vec<(Pin, u64)>,
    tokens: Vec<(InResync, BTreeMap<u64, BTreeSet<u64>>)>,
}

/// Ends a life: the storage failed or stopped.
type Step = Result<(), Error>;

impl World {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut rng = SimRng::new(seed);
        let unit = if rng.chance(0.5) { AtomicUnit::Sector } else { AtomicUnit::Block };
        let storage = SimulatedStorage::with_config(SimulatedConfig { seed, unit, capacity: None });
        let options = MapFileOptions {
            region_bytes: rng.pick(&[16 << 10, 1 << 20, 4 << 20]),
            ring_records: rng.pick(&[2, 2, 4, 8]),
            regions_active_max: rng.pick(&[4, 5, 8, 12, 944]),
            log: true,
            map: MapOptions { sabotage },
        };
        let bytes = rng.pick(&[512, 4096, (64 << 20) + 512, (300 << 20) - 1024, 126 << 20]);
        Self {
            rng,
            storage,
            options,
            model: Model::default(),
            extent: ExtentId::new(1),
            extents: 1,
            bytes,
            generations: vec![1],
            exact: true,
            failed: false,
            rotten: false,
            log: String::new(),
        }
    }

    fn note(&mut self, text: impl std::fmt::Display) {
        writeln!(self.log, "  {text}").expect("a string takes it");
    }

    fn next_extent(&mut self) -> ExtentId {
        self.extents += 1;
        ExtentId::new(self.extents)
    }

    fn shape(&self) -> Shape {
        Shape::new(self.bytes, Granularity::new(GRANULARITY).unwrap()).unwrap()
    }

    /// The first map, or one in place of a map that was refused: with all that differs.
    fn create(&mut self) -> Result<MapFile> {
        self.extent = self.next_extent();
        let map = DirtyMap::with_options(self.shape(), self.options.map)?;
        for block in self.model.differing(true) {
            map.set(ByteRange::new(block * GRANULARITY, 1));
        }
        let extent = self.storage.create(self.extent, 0).unwrap();
        self.storage.sync_names().unwrap();
        MapFile::create(extent, DEVICE, *self.generations.last().unwrap(), map, self.options)
    }

    /// Opens after a crash and compares.
    fn open(&mut self) -> Result<MapFile, String> {
        let mut refused = String::new();
        for generation in self.generations.clone() {
            let extent = self.storage.open(self.extent).unwrap();
            let base = Base { device: DEVICE, generation, shape: self.shape() };
            match MapFile::open(extent, base, self.options) {
                Ok((file, opened)) => {
                    self.note(format_args!("opened {opened:?}"));
                    if self.exact && opened.all_dirty.is_some() {
                        return Err(format!("all dirty without a cause: {opened:?}"));
                    }
                    self.compare(&file, true)?;
                    self.generations = vec![generation];
                    return Ok(file);
                }
                Err(Error::MapRefused(text)) => refused = text,
                Err(error) => return Err(format!("open: {error}")),
            }
        }
        if !self.rotten {
            return Err(format!("refused: {refused}"));
        }
        self.note(format_args!("refused: {refused}"));
        self.create().map_err(|error| error.to_string())
    }

    fn compare(&self, file: &MapFile, in_flight: bool) -> Result<(), String> {
        for block in self.model.differing(in_flight) {
            if !file.map().is_dirty(ByteRange::new(block * GRANULARITY, 1)) {
                return Err(format!("block {block} differs and is not claimed"));
            }
        }
        Ok(())
    }

    fn range(&mut self) -> ByteRange {
        let sectors = self.bytes / 512;
        // Often near others, and at the edges.
        let first = match self.rng.below(4) {
            0 => self.rng.below(sectors),
            1 => self.rng.below(sectors.min(64)),
            2 => sectors - 1 - self.rng.below(sectors.min(64)),
            _ => self.rng.below(40) * (self.options.region_bytes / 512) % sectors,
        };
        let length = 1 + self.rng.below(24);
        ByteRange::new(first * 512, length.min(sectors - first) * 512)
    }

    fn step(&mut self, life: &mut Life) -> Step {
        match self.rng.below(100) {
            0..35 => {
                let range = self.range();
                let Some(pin) = life.file.try_begin_write(range)? else {
                    self.note("full");
                    return Ok(());
                };
                let write = self.model.submit(range, true);
                self.note(format_args!("write {write}: {range:?}"));
                life.pins.push((pin, write));
            }
            35..65 if !life.pins.is_empty() => {
                let at = self.rng.below(life.pins.len() as u64) as usize;
                let (pin, write) = life.pins.swap_remove(at);
                let durable = self.rng.chance(0.4);
                self.note(format_args!("done {write}: {durable}"));
                let range = pin.range();
                pin.done(durable);
                self.model.done(write, range, durable);
            }
            65..75 => {
                let from = self.rng.below(self.shape().blocks());
                let from = if self.rng.chance(0.7) { 0 } else { from };
                let Some(token) = life.file.map().begin(from, 1 + self.rng.below(40)) else { return Ok(()) };
                self.note(format_args!("resync {token:?}"));
                let read = token_blocks(&token).map(|block| (block, self.model.read(block))).collect();
                life.tokens.push((token, read));
            }
            75..88 if !life.tokens.is_empty() => {
                let at = self.rng.below(life.tokens.len() as u64) as usize;
                let (token, read) = life.tokens.swap_remove(at);
                let mut durable = token.range();
                match self.rng.below(3) {
                    0 => {
                        self.note(format_args!("abandon {token:?}"));
                        token.abandon();
                        return Ok(());
                    }
                    1 if durable.bytes > 512 => {
                        durable.bytes -= 512 * (1 + self.rng.below(durable.bytes / 512 - 1));
                        self.note(format_args!("clean {token:?} only {durable:?}"));
                        token.clean_only(durable);
                    }
                    _ => {
                        self.note(format_args!("clean {token:?}"));
                        token.clean();
                    }
                }
                for (block, writes) in &read {
                    if ((block + 1) * GRANULARITY).min(self.bytes) <= durable.end() {
                        self.model.forget(*block, writes);
                    }
                }
            }
            88..91 => {
                self.note("checkpoint");
                life.file.checkpoint()?;
            }
            91 => {
                let on = self.rng.chance(0.5);
                self.note(format_args!("log {on}"));
                self.exact &= on;
                life.file.set_log(on)?;
            }
            92 => {
                let next = self.generations[0] + 1;
                self.note(format_args!("rotate {next}"));
                self.generations.push(next);
                life.file.rotate(next)?;
                self.generations.remove(0);
            }
            93 if self.rng.chance(0.2) => {
                self.note("all dirty");
                self.exact = false;
                life.file.mark_all_dirty()?;
            }
            94 => {
                let range = self.range();
                self.note(format_args!("merge {range:?}"));
                let other = DirtyMap::new(self.bytes, Granularity::new(8192).unwrap())?;
                other.set(range);
                life.file.map().merge(&other)?;
                life.file.checkpoint()?;
                self.model.submit(range, false);
            }
            95..98 => return self.save_and_reopen(life),
            98 => return self.resize(life),
            _ => {}
        }
        Ok(())
    }

    fn save_and_reopen(&mut self, life: &mut Life) -> Step {
        let saved = life.file.save_clean();
        if !life.pins.is_empty() {
            assert!(matches!(saved, Err(Error::InvalidArgument(_)) | Err(Error::Poisoned(_))), "{saved:?}");
            return Ok(());
        }
        self.note("save and reopen");
        saved?;
        assert!(matches!(life.file.begin_write(ByteRange::new(0, 512)), Err(Error::Poisoned(_))));
        life.tokens.clear();
        let claim: Vec<_> = life.file.map().extents().collect();
        let base = Base { device: DEVICE, generation: self.generations[0], shape: self.shape() };
        let (file, opened) = MapFile::open(self.storage.open(self.extent).unwrap(), base, self.options)?;
        assert!(opened.clean && opened.all_dirty.is_none(), "{opened:?}");
        assert_eq!(file.map().extents().collect::<Vec<_>>(), claim, "exact across a clean close");
        life.file = file;
        self.exact = !self.failed && !self.rotten;
        Ok(())
    }

    fn resize(&mut self, life: &mut Life) -> Step {
        if !life.pins.is_empty() {
            return Ok(());
        }
        let new = (self.bytes + self.rng.below(64) * 512).saturating_sub(self.rng.below(64) * 512).max(512);
        self.note(format_args!("resize to {new}"));
        let extent = self.next_extent();
        let target = match self.storage.create(extent, 0).and_then(|new| {
            self.storage.sync_names()?;
            Ok(new)
        }) {
            Ok(target) => target,
            Err(error) => return Err(Error::io("create", "an extent", error)),
        };
        life.file = life.file.resize_into(target, new)?;
        life.tokens.clear();
        let old = std::mem::replace(&mut self.bytes, new);
        self.extent = extent;
        self.model.missing.retain(|block, _| block * GRANULARITY < new);
        if new > old {
            self.model.submit(ByteRange::new(old, new - old), false);
        }
        Ok(())
    }

    /// Runs until the storage stops or fails, or a number of steps is done.
    fn live(&mut self, file: MapFile) -> Result<(), String> {
        let trouble = self.rng.below(10);
        if trouble < 7 {
            self.storage.stop_at_change(self.storage.changes() + 1 + self.rng.below(40));
        } else if trouble < 9 {
            let fault = Fault::io_error(self.rng.pick(&[Call::Write, Call::Sync])).after(self.rng.below(20));
            self.storage.inject(if self.rng.chance(0.5) { fault.forever() } else { fault });
        }
        let steps = self.rng.below(150);
        self.go(file, steps)
    }

    fn go(&mut self, file: MapFile, steps: u64) -> Result<(), String> {
        let mut life = Life { file, pins: Vec::new(), tokens: Vec::new() };
        for _ in 0..steps {
            let struck = self.storage.faults_struck();
            let result = self.step(&mut life);
            self.failed |= self.storage.faults_struck() != struck;
            self.exact &= !self.failed;
            match result {
                Ok(()) if self.storage.is_stopped() => return Err("an error was swallowed".into()),
                Ok(()) => self.compare(&life.file, false)?,
                Err(error) => {
                    self.note(format_args!("failed: {error}"));
                    let range = self.range();
                    let next = life.file.begin_write(range);
                    let refused = matches!(next, Err(Error::Poisoned(_)));
                    // A failure of the extent of a new map, or before there is one, leaves the old one in use.
                    if !refused && self.storage.faults_struck() == struck && !self.storage.is_stopped() {
                        return Err(format!("a write was let through after {error}: {next:?}"));
                    }
                    if let Ok(pin) = next {
                        let write = self.model.submit(range, true);
                        life.pins.push((pin, write));
                    }
                    break;
                }
            }
        }
        self.model.in_flight.clear();
        Ok(())
    }

    fn crash(&mut self) {
        let seed = self.rng.next_u64();
        let policy = self.rng.pick(&[CrashPolicy::Random, CrashPolicy::Random, CrashPolicy::LoseUnsynced]);
        let kill = self.rng.chance(0.2);
        self.note(format_args!("crash: kill {kill}, {policy:?}"));
        self.storage = if kill { self.storage.kill() } else { self.storage.crash(seed, policy) };
        if self.rng.chance(0.3) {
            let pages = 2 + u64::from(self.options.ring_records);
            let pages = if self.rng.chance(0.8) { pages } else { pages + 3 };
            let (offset, bit) = (self.rng.below(pages * 4096), self.rng.below(8) as u8);
            self.note(format_args!("rot at {offset}.{bit}"));
            self.exact = false;
            self.rotten = true;
            self.storage.flip_bit(self.extent, offset, bit).unwrap();
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let mut file = self.create().map_err(|error| error.to_string())?;
        for _ in 0..6 {
            self.live(file)?;
            self.crash();
            file = self.open()?;
        }
        self.finish(&file)
    }

    /// Progress: a quiet resync empties the map, and that is what is found again.
    fn finish(&mut self, file: &MapFile) -> Result<(), String> {
        while let Some(token) = file.map().begin(0, 1 << 12) {
            token_blocks(&token).for_each(|block| drop(self.model.missing.remove(&block)));
            token.clean();
        }
        let left: Vec<_> = self.model.differing(true).collect();
        if !left.is_empty() || !file.map().is_empty() || file.map().weight() != 0 {
            return Err(format!("after a quiet resync {left:?} differ, weight {}", file.map().weight()));
        }
        file.checkpoint().and_then(|()| file.save_clean()).map_err(|error| error.to_string())?;
        let file = self.open()?;
        if file.map().is_empty() { Ok(()) } else { Err("a clean close did not keep the map".into()) }
    }
}

fn run_seed(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    let mut world = World::new(seed, sabotage);
    let result = world.run();
    result.map_err(|error| format!("seed {seed}: {error}\n{}", world.log))
}

fn run_seeds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(error) = run_seed(seed, Sabotage::default()) {
            panic!("{error}");
        }
    }
}

/// Goal: the theorem and progress. Method: random histories with crashes, faults and rot; the failing one prints its seed and steps.
#[test]
fn the_claim_covers_every_difference_after_any_crash() {
    let count = std::env::var("DIRTY_MAP_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
    run_seeds(0..count);
}

/// Goal: no call is special. Method: one history for a seed, with no trouble but a stop at each of its changing calls in turn, each crashed in
/// several ways.
#[test]
fn a_stop_at_every_call_is_survived() {
    for seed in 0..12 {
        for stop in 1.. {
            let mut world = World::new(seed, Sabotage::default());
            let file = world.create().unwrap();
            world.storage.stop_at_change(world.storage.changes() + stop);
            let mut result = world.go(file, 60);
            let stopped = world.storage.is_stopped();
            let storage = world.storage.clone();
            for (number, policy) in [CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced]
                .into_iter()
                .chain([CrashPolicy::Random; 6])
                .enumerate()
            {
                world.storage = storage.crash(stop * 8 + number as u64, policy);
                let generations = world.generations.clone();
                result = result.and_then(|()| world.open().map(drop));
                world.generations = generations;
            }
            if let Err(error) = result {
                panic!("seed {seed}, stopped at change {stop}: {error}\n{}", world.log);
            }
            if !stopped {
                println!("seed {seed}: {} stops", stop - 1);
                break;
            }
        }
    }
}

/// Goal: the tests are sharp. Method: every switch, among a bounded number of seeds, which pass without it.
#[test]
fn every_deliberate_defect_is_found() {
    for switch in DIRTY_MAP_SWITCHES {
        let sabotage = Sabotage::default().with(switch);
        let found = (0..2000).find(|seed| run_seed(*seed, sabotage).is_err());
        println!("{switch:?}: seed {found:?}");
        assert!(found.is_some(), "{switch:?} was not found");
    }
}

/// Goal: many threads that activate regions at once share records, and none waits for ever when few regions fit. Method: threads write
/// across region ends with room for four regions; the claim holds all in the end.
#[test]
fn threads_share_the_log_and_none_starves() {
    let storage = SimulatedStorage::new(1);
    let extent = storage.create(ExtentId::new(1), 0).unwrap();
    let options =
        MapFileOptions { regions_active_max: 4, region_bytes: 1 << 20, ..MapFileOptions::default() };
    let map = DirtyMap::new(64 << 20, Granularity::MIN).unwrap();
    let file = Arc::new(MapFile::create(extent, DEVICE, 1, map, options).unwrap());
    let before = storage.calls();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let file = Arc::clone(&file);
            scope.spawn(move || {
                let mut rng = SimRng::new(seed);
                for _ in 0..300 {
                    let offset = rng.below(63) * (1 << 20) + rng.pick(&[0, (1 << 20) - 512]);
                    file.begin_write(ByteRange::new(offset, 1024)).unwrap().done(rng.chance(0.5));
                }
            });
        }
    });
    println!("{} calls for 1800 writes", storage.calls() - before);
    let claim: Vec<_> = file.map().extents().collect();
    file.save_clean().unwrap();
    let base = Base { device: DEVICE, generation: 1, shape: Shape::new(64 << 20, Granularity::MIN).unwrap() };
    let (file, opened) = MapFile::open(storage.open(ExtentId::new(1)).unwrap(), base, options).unwrap();
    assert!(opened.clean);
    assert_eq!(file.map().extents().collect::<Vec<_>>(), claim);
    for other in [
        Base { device: Uuid([8; 16]), ..base },
        Base { generation: 2, ..base },
        Base { shape: Shape::new((64 << 20) - 512, Granularity::MIN).unwrap(), ..base },
        Base { shape: Shape::new(64 << 20, Granularity::MAX).unwrap(), ..base },
    ] {
        let opened = MapFile::open(storage.open(ExtentId::new(1)).unwrap(), other, options);
        assert!(matches!(opened, Err(Error::MapRefused(_))));
    }
}
