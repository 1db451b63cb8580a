//! Comparing the copies while they are in use.
//!
//! Copies are read without holding anything up. A block in which they differ is read again under the lock of its range, where no write is in flight: so a block that
//! changes is no difference. Blocks that a map names are left out for that copy: they are known to differ. Nothing is repaired unless the caller says which copy is right.

use super::{
    repair::make_equal,
    set::{Member, MirrorSet, member},
};
use crate::{
    Error, Result,
    dirty_map::ByteRange,
    io::{AlignedBuf, IO_ALIGN},
    limits::VERIFY_EXTENTS_MAX,
    restore::Progress,
    units::{len_u64, to_len},
};
use std::ops::ControlFlow;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// How a verification goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Where to begin, bytes: [`Verified::next_offset`] of one that was stopped.
    pub from_offset: u64,
    /// Make differing blocks of all other copies equal to this one.
    pub right: Option<u32>,
}

/// A range in which copies differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whole blocks of 4 KiB, clipped to the volume.
    pub range: ByteRange,
    /// Lowest number among more than half of at least three copies that agree: a proposal, no proof.
    pub majority: Option<u32>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Bytes of the volume of which at least two copies were compared.
    pub bytes_compared: u64,
    /// Bytes in which copies differ.
    pub bytes_different: u64,
    /// Where, ascending; neighbours with the same proposal are one.
    pub differences: Vec<Difference>,
    /// There are more differences than are listed.
    pub truncated: bool,
    /// Bytes that were written to make copies equal.
    pub bytes_repaired: u64,
    /// Bytes that some copy could not give.
    pub bytes_unreadable: u64,
    /// Where to go on; the size of the volume when it is done.
    pub next_offset: u64,
}

impl Verified {
    fn note(&mut self, range: ByteRange, majority: Option<u32>) {
        self.bytes_different += range.bytes;
        let full = self.differences.len() >= VERIFY_EXTENTS_MAX;
        match self.differences.last_mut() {
            Some(last) if last.range.end() == range.offset && last.majority == majority => {
                last.range.bytes += range.bytes;
            }
            _ if full => self.truncated = true,
            _ => self.differences.push(Difference { range, majority }),
        }
    }
}

/// The copies that hold a range, read.
struct Read {
    contents: Vec<(u32, AlignedBuf)>,
    unreadable: bool,
}

impl MirrorSet {
    /// Compares all copies that are online, block by block.
    ///
    /// # Errors
    /// `NotFound` for a copy that is said to be right and is none; `MirrorRefused` when it is not online; `Io` when memory cannot be had; `Poisoned`.
    pub fn verify(
        &self,
        options: VerifyOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Verified> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        if let Some(right) = options.right
            && member(&self.members.read(), right)?.taking().is_none()
        {
            return Err(Error::MirrorRefused(format!("copy {right} is not online")));
        }
        let align = len_u64(IO_ALIGN);
        let bytes = geometry.shape.bytes();
        let mut found =
            Verified { next_offset: options.from_offset.min(bytes) / align * align, ..Verified::default() };
        while found.next_offset < bytes {
            let chunk = ByteRange::new(found.next_offset, CHUNK_BYTES.min(bytes - found.next_offset));
            self.verify_chunk(chunk, options.right, &mut found)?;
            found.next_offset = chunk.end();
            if progress(Progress { done: chunk.end(), total: bytes }).is_break() {
                break;
            }
        }
        if found.bytes_repaired > 0 {
            self.flush_with(&geometry)?;
        }
        Ok(found)
    }

    fn verify_chunk(&self, chunk: ByteRange, right: Option<u32>, found: &mut Verified) -> Result<()> {
        let read = self.read_all(chunk, |member| member.online)?;
        if read.unreadable {
            found.bytes_unreadable += chunk.bytes;
        }
        if read.contents.len() < 2 {
            return Ok(());
        }
        let whole = |number: u32| {
            self.members.read().iter().any(|member| member.number == number && member.has(chunk))
        };
        if read.contents.iter().all(|(number, _)| whole(*number)) && all_equal(&read, 0..to_len(chunk.bytes))
        {
            found.bytes_compared += chunk.bytes;
            return Ok(());
        }
        for at in (0..chunk.bytes).step_by(IO_ALIGN) {
            let block = ByteRange::new(chunk.offset + at, len_u64(IO_ALIGN).min(chunk.bytes - at));
            let place = to_len(at)..to_len(at + block.bytes);
            let numbers: Vec<u32> = {
                let members = self.members.read();
                members.iter().filter(|member| member.has(block)).map(|member| member.number).collect()
            };
            let own: Vec<&[u8]> = read
                .contents
                .iter()
                .filter(|(number, _)| numbers.contains(number))
                .map(|(_, content)| &content[place.clone()])
                .collect();
            if own.len() < 2 {
                continue;
            }
            found.bytes_compared += block.bytes;
            if own.windows(2).any(|pair| pair[0] != pair[1]) {
                self.confirm(block, right, found)?;
            }
        }
        Ok(())
    }

    /// Looks at a block again while nobody writes to it.
    fn confirm(&self, block: ByteRange, right: Option<u32>, found: &mut Verified) -> Result<()> {
        let held = self.ranges.lock(block);
        let read = self.read_all(block, |member| member.has(block))?;
        let len = to_len(block.bytes);
        if read.contents.len() < 2 || all_equal(&read, 0..len) {
            return Ok(());
        }
        found.note(block, majority(&read, len));
        let Some(right) = right else { return Ok(()) };
        let Some((_, source)) = read.contents.iter().find(|(number, _)| *number == right) else {
            return Ok(());
        };
        // What is written is lost again when the copy fails before it is synced.
        self.unsynced.lock().push(block, None);
        let mut failures = Vec::new();
        let mut buf =
            AlignedBuf::new(len).map_err(|error| Error::io("reserve memory for", "a repair", error))?;
        let members = self.members.read();
        for (number, _) in read.contents.iter().filter(|(number, _)| *number != right) {
            let Some(copy) = member(&members, *number)?.taking() else { continue };
            match make_equal(&**copy, block, &source[..len], Some(&mut buf)) {
                Ok(bytes) => found.bytes_repaired += bytes,
                Err(error) => failures.push((*number, error)),
            }
        }
        drop(members);
        if !failures.is_empty() {
            self.demote("repair", &failures, Some(block))?;
        }
        drop(held);
        Ok(())
    }

    /// Reads a range from all copies that `wanted` names.
    fn read_all(&self, range: ByteRange, wanted: impl Fn(&Member) -> bool) -> Result<Read> {
        let members = self.members.read();
        let mut read = Read { contents: Vec::new(), unreadable: false };
        for member in members.iter().filter(|member| wanted(member)) {
            let Some(copy) = member.taking().filter(|_| !self.is_pending(member.number, range)) else {
                continue;
            };
            let mut buf = AlignedBuf::new(to_len(range.bytes))
                .map_err(|error| Error::io("reserve memory for", "a verification", error))?;
            match copy.read_at(range.offset, &mut buf[..to_len(range.bytes)]) {
                Ok(()) => read.contents.push((member.number, buf)),
                Err(_) => read.unreadable = true,
            }
        }
        Ok(read)
    }
}

fn all_equal(read: &Read, place: std::ops::Range<usize>) -> bool {
    read.contents.windows(2).all(|pair| pair[0].1[place.clone()] == pair[1].1[place.clone()])
}

/// The lowest of more than half of at least three copies that hold the same.
fn majority(read: &Read, len: usize) -> Option<u32> {
    let copies = &read.contents;
    let agree =
        |content: &AlignedBuf| copies.iter().filter(|(_, other)| other[..len] == content[..len]).count();
    let found = copies.iter().find(|(_, content)| agree(content) * 2 > copies.len());
    found.filter(|_| copies.len() >= 3).map(|(number, _)| *number)
}
