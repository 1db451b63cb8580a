//! What must be true of a mirrored world.

use super::{BLOCK_SECTORS, MirrorWorld};
use crate::{
    io::{AlignedBuf, Storage, simulated::SimRng},
    mirror::{
        Standing,
        record::{SLOT_BYTES, StateRecord},
    },
    testing::mismatch::Mismatch,
    units::{BLOCK_BYTES, ExtentId, len_u64, to_len},
};

/// The extent of the state record.
const STATE: ExtentId = ExtentId::ZERO;

impl MirrorWorld {
    /// How a copy stands in the set; `None` when it is not in it.
    pub(super) fn standing(&self, at: usize) -> Option<Standing> {
        let copies = self.set.as_ref()?.status().copies;
        copies.iter().find(|copy| copy.number == self.disks[at].number).map(|copy| copy.standing)
    }

    /// The disks of the copies that stand so.
    pub(super) fn standing_so(&self, wanted: impl Fn(Standing) -> bool) -> Vec<usize> {
        (0..self.disks.len()).filter(|at| self.standing(*at).is_some_and(&wanted)).collect()
    }

    /// The theorem: every block of a copy that differs from the volume is in the copy's claim.
    pub(super) fn check_claims(&mut self) -> Result<(), Mismatch> {
        for at in self.standing_so(|standing| !matches!(standing, Standing::Missing | Standing::Refused)) {
            let own = &self.disks[at];
            let number = own.number;
            if own.tampered {
                continue;
            }
            let Some(data) = self.raw(at) else { continue };
            let what = format!("copy {number}");
            let claim = self.set().claim(number).unwrap_or_default();
            let mut extents = claim.iter().peekable();
            let mut claimed_blocks = 0;
            for (block, bytes) in data.chunks(BLOCK_SECTORS * 512).enumerate() {
                let offset = len_u64(block) * BLOCK_BYTES;
                while extents.peek().is_some_and(|extent| extent.end() <= offset) {
                    extents.next();
                }
                let claimed = extents.peek().is_some_and(|extent| extent.offset <= offset);
                let first = block * BLOCK_SECTORS;
                let differs = self.difference(first, bytes);
                if let (Some(sector), false) = (differs, claimed) {
                    let holds = self.model.decode(&what, sector, &bytes[(sector - first) * 512..][..512]);
                    let holds = holds.map_or_else(|error| error.to_string(), |stamps| stamps[0].to_string());
                    let should =
                        self.model.certain(sector).map_or_else(String::new, |stamp| stamp.to_string());
                    let status = format!("{holds}; {:?}", self.set().status());
                    return Err(Mismatch::new(
                        format!("{what}, sector {sector}, not claimed"),
                        should,
                        status,
                    ));
                }
                claimed_blocks += u64::from(differs.is_some());
            }
            self.coverage.claimed += claimed_blocks;
        }
        Ok(())
    }

    /// The first sector of a row that does not hold what a read of the volume gives.
    fn difference(&self, first: usize, bytes: &[u8]) -> Option<usize> {
        (first..).zip(bytes.chunks(512)).find_map(|(sector, bytes)| {
            let stamp = self.model.certain(sector)?;
            (bytes != self.model.content(sector..sector + 1, stamp)).then_some(sector)
        })
    }

    /// The state record on the disk, read past the set.
    pub(super) fn record(&self) -> Option<StateRecord> {
        self.slots().into_iter().flatten().max_by_key(|record| record.sequence)
    }

    fn slots(&self) -> Vec<Option<StateRecord>> {
        let disk = self.meta.fork();
        disk.clear_faults();
        let Ok(extent) = disk.open(STATE) else { return Vec::new() };
        let slot = |slot: u32| {
            let mut buf = AlignedBuf::new(SLOT_BYTES).ok()?;
            extent.read_at(u64::from(slot) * len_u64(SLOT_BYTES), &mut buf[..SLOT_BYTES]).ok()?;
            StateRecord::decode(&buf[..SLOT_BYTES], slot).ok()
        };
        vec![slot(0), slot(1)]
    }

    /// Rule R14: a copy that missed a write is of another generation than those that did not, durably.
    pub(super) fn check_rotated(&self) -> Result<(), Mismatch> {
        let Some(record) = self.record() else { return Ok(()) };
        let (missed, others): (Vec<_>, Vec<_>) =
            record.copies.iter().partition(|copy| self.missed.contains(&copy.number));
        let may_be_whole = |number: u32| self.becoming_whole.contains(&number) || self.holds_all(number);
        for copy in missed.iter().filter(|copy| !may_be_whole(copy.number)) {
            let current = copy.generations.current();
            // Copies that are being repaired are behind as well.
            let newest = others.iter().map(|other| other.generations.current().number).max();
            let newest = others.iter().filter(|other| Some(other.generations.current().number) == newest);
            if let Some(other) = newest.into_iter().find(|other| other.generations.current() == current) {
                return Err(Mismatch::new(
                    format!("generation of copy {}, which missed a write", copy.number),
                    format!("another than that of copy {}", other.number),
                    current.to_string(),
                ));
            }
        }
        Ok(())
    }

    /// What a copy missed may have been cut off, or been the same: one that is taken for clean and has all misses nothing.
    pub(super) fn forget_cut_off(&mut self) {
        let has_all = |at: &usize| self.holds_all(self.disks[*at].number);
        let clean = self.standing_so(|standing| standing == Standing::Clean);
        let whole: Vec<u32> =
            clean.iter().filter(|at| has_all(at)).map(|at| self.disks[*at].number).collect();
        self.missed.retain(|number| !whole.contains(number));
    }

    /// Whether the disk of a copy has all of the volume: what it missed may have been cut off, or been the same.
    fn holds_all(&self, number: u32) -> bool {
        let at = self.disks.iter().position(|own| own.number == number);
        let data = at.and_then(|at| self.raw(at));
        data.is_some_and(|data| {
            len_u64(data.len()) == self.model.bytes() && self.difference(0, &data).is_none()
        })
    }

    /// Copies that were becoming whole when the machine went down: the state on the disk says which of them did.
    pub(super) fn forget_whole(&mut self) {
        let Some(record) = self.record() else { return };
        let newest = record.copies.iter().map(|copy| copy.generations.current()).max();
        for copy in record.copies.iter().filter(|copy| Some(copy.generations.current()) == newest) {
            if self.becoming_whole.contains(&copy.number) {
                self.missed.remove(&copy.number);
            }
        }
        self.becoming_whole.clear();
    }

    /// Bits of the metadata rot. Says whether any did.
    pub(super) fn harm_metadata(&mut self) -> bool {
        let Some(seed) = self.harm.take() else { return false };
        let mut rng = SimRng::new(seed);
        let extents = self.meta.fork().list().unwrap_or_default();
        if extents.is_empty() {
            return false;
        }
        let extent = rng.pick(&extents);
        let bytes = self.meta.fork().open(extent).and_then(|extent| extent.size()).unwrap_or(0);
        // A slot that a crash has torn leaves one that nothing may happen to.
        if bytes == 0 || (extent == STATE && self.slots().iter().any(Option::is_none)) {
            return false;
        }
        let half = bytes / 2;
        let (from, span) = if extent == STATE { (half * rng.below(2), half) } else { (0, bytes) };
        let mut harmed = false;
        for _ in 0..1 + rng.below(3) {
            let offset = from + rng.below(span);
            harmed |=
                self.meta.flip_bit(extent, offset, u8::try_from(rng.below(8)).unwrap_or(0)).unwrap_or(false);
        }
        self.coverage.harmed += u64::from(harmed);
        harmed
    }

    /// Decides by hand for a copy that holds what the volume may hold.
    pub(super) fn resolve(&mut self) -> Result<(), Mismatch> {
        let mut found = None;
        for at in self.standing_so(|standing| standing != Standing::Missing) {
            // The set holds on to what such a disk was before.
            let Some(data) = self.raw(at).filter(|_| !self.disks[at].replaced) else { continue };
            let stamps = self.model.decode("a copy", 0, &data);
            if stamps.is_ok_and(|stamps| self.model.allows(&stamps)) {
                found = Some(self.disks[at].number);
                break;
            }
        }
        let Some(winner) = found else {
            let status = format!("{:?}", self.set().status());
            return Err(Mismatch::new("copies of a set without a source", "one is right", status));
        };
        self.resolving = true;
        let resolved = self.set().resolve(winner);
        if self.outcome("resolve", resolved)?.is_some() {
            self.resolving = false;
            self.missed.clear();
            self.disks.iter_mut().for_each(|own| own.tampered = false);
            self.read_all("the volume after it was decided who is right")?;
        }
        Ok(())
    }

    /// Whether the set must notice that a copy holds something else: its stamp, or a block of its sample.
    pub(super) fn must_notice(&self, at: usize, other: &[u8]) -> bool {
        let (Some(record), Some(now)) = (self.record(), self.raw(at)) else { return false };
        let Some(own) = record.copies.iter().find(|copy| copy.number == self.disks[at].number) else {
            return false;
        };
        let sample = if own.online { &record.sample } else { &own.sample };
        let differs = |block: u64| {
            let place = to_len(block * BLOCK_BYTES)..to_len((block + 1) * BLOCK_BYTES);
            now.get(place.clone()) != other.get(place)
        };
        own.stamp.is_some() || sample.iter().any(|entry| differs(entry.block))
    }
}
