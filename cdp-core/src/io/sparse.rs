//! Bytes with holes, in blocks of [`IO_ALIGN`] that copies share until one of them changes.
//!
//! Stands behind the extents of the memory storage and of the simulated disk. A copy costs one reference count a block.
//! Invariants: *no hidden tail* - after [`SparseBytes::trim`] and [`SparseBytes::set_size`] nothing but zeroes lies at
//! or beyond the size; *allocation* - `allocated()` is the reservation plus the blocks outside of it.

use super::IO_ALIGN;
use crate::units::{len_u64, to_len};
use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

/// One block of content, shared between copies.
pub(super) type SharedBlock = Arc<[u8; IO_ALIGN]>;

const BLOCK: u64 = len_u64(IO_ALIGN);

/// The blocks of `data`, each behind a count of its own.
#[cfg(any(test, feature = "testing"))]
pub(super) fn shared_blocks(data: &[u8]) -> Vec<SharedBlock> {
    let (blocks, rest) = data.as_chunks::<IO_ALIGN>();
    debug_assert!(rest.is_empty(), "lengths are checked before");
    blocks.iter().map(|block| Arc::new(*block)).collect()
}

/// Content of an extent: its size and the blocks that were written.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseBytes {
    size: u64,
    /// Bytes from the start that count as allocated whether written or not; a multiple of a block.
    reserved: u64,
    /// Blocks at or beyond `reserved`.
    blocks_unreserved: u64,
    blocks: BTreeMap<u64, SharedBlock>,
}

impl SparseBytes {
    /// Size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are taken up or reserved.
    pub(super) fn allocated(&self) -> u64 {
        self.reserved + self.blocks_unreserved * BLOCK
    }

    /// Sets the size to `bytes` and reserves the space up to it.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.set_size(bytes);
        self.reserved = self.reserved.max(bytes.next_multiple_of(BLOCK));
        self.count_unreserved();
    }

    /// Cuts or extends; a cut drops what lies beyond.
    pub(super) fn set_size(&mut self, bytes: u64) {
        let cut = bytes < self.size;
        self.size = bytes;
        if cut {
            self.trim();
        }
    }

    /// Drops everything that lies beyond the size.
    pub(super) fn trim(&mut self) {
        let blocks_kept = self.size.div_ceil(BLOCK);
        self.blocks.split_off(&blocks_kept);
        let tail = to_len(self.size % BLOCK);
        if tail != 0
            && let Some(last) = self.blocks.get_mut(&(blocks_kept - 1))
        {
            Arc::make_mut(last)[tail..].fill(0);
        }
        self.reserved = self.reserved.min(blocks_kept * BLOCK);
        self.count_unreserved();
    }

    fn count_unreserved(&mut self) {
        self.blocks_unreserved = len_u64(self.blocks.range(self.reserved / BLOCK..).count());
    }

    /// Bytes that a write to this range would allocate.
    pub(super) fn cost_of_write(&self, offset: u64, len: usize) -> u64 {
        let range = Range {
            start: (offset / BLOCK).max(self.reserved / BLOCK),
            end: (offset + len_u64(len)) / BLOCK,
        };
        if range.is_empty() {
            return 0;
        }
        (range.end - range.start - len_u64(self.blocks.range(range).count())) * BLOCK
    }

    /// Fills `buf` from `offset`, holes with zeroes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the range reaches past the end.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset + len_u64(buf.len()) > self.size {
            return Err(past_the_end(offset, buf.len(), self.size));
        }
        for (index, part) in (offset / BLOCK..).zip(buf.chunks_mut(IO_ALIGN)) {
            match self.blocks.get(&index) {
                Some(block) => part.copy_from_slice(&block[..]),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    /// Writes `data` in place, growing the size when needed.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let (blocks, _) = data.as_chunks::<IO_ALIGN>();
        for (index, part) in (offset / BLOCK..).zip(blocks) {
            match self.blocks.get_mut(&index).and_then(Arc::get_mut) {
                Some(block) => *block = *part,
                None => drop(self.put(index, Arc::new(*part))),
            }
        }
        self.size = self.size.max(offset + len_u64(data.len()));
    }

    /// The block at `index`, `None` for a hole.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn block(&self, index: u64) -> Option<&SharedBlock> {
        self.blocks.get(&index)
    }

    /// The block at `index` to change it in place, `None` for a hole.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn block_mut(&mut self, index: u64) -> Option<&mut [u8; IO_ALIGN]> {
        self.blocks.get_mut(&index).map(Arc::make_mut)
    }

    /// Puts a block in place whatever the size is, and returns the one that it replaces.
    pub(super) fn put(&mut self, index: u64, block: SharedBlock) -> Option<SharedBlock> {
        let replaced = self.blocks.insert(index, block);
        if replaced.is_none() && index >= self.reserved / BLOCK {
            self.blocks_unreserved += 1;
        }
        replaced
    }
}

/// The error for a read past the end.
pub(super) fn past_the_end(offset: u64, len: usize, size: u64) -> io::Error {
    let text = format!("a read of {len} bytes at {offset} reaches past the end of the extent ({size} bytes)");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: space is counted once, whether reserved or written. Method: write inside, across and beyond a reservation,
    /// compare the predicted cost with the change.
    #[test]
    fn a_write_costs_what_it_adds_outside_of_the_reservation() {
        let mut content = SparseBytes::default();
        content.reserve(2 * BLOCK);
        assert_eq!(content.allocated(), 2 * BLOCK);
        for (offset, len, expected) in [(0, 2, 0), (1, 3, 2), (1, 3, 0), (9, 1, 1)] {
            let data = vec![7; len * IO_ALIGN];
            let (before, cost) = (content.allocated(), content.cost_of_write(offset * BLOCK, data.len()));
            content.write(offset * BLOCK, &data);
            assert_eq!((cost, content.allocated() - before), (expected * BLOCK, expected * BLOCK));
        }
        content.set_size(BLOCK);
        assert_eq!(content.allocated(), BLOCK);
    }

    /// Goal: a copy does not see later changes. Method: change the original in place after copying it.
    #[test]
    fn a_copy_keeps_its_content() {
        let mut content = SparseBytes::default();
        content.write(0, &[1; IO_ALIGN]);
        let copy = content.clone();
        content.write(0, &[2; IO_ALIGN]);
        let mut buf = [0; IO_ALIGN];
        copy.read(0, &mut buf).unwrap();
        assert_eq!(buf, [1; IO_ALIGN]);
    }

    /// Goal: a cut inside a block leaves no old bytes behind. Method: cut, extend, read.
    #[test]
    fn a_cut_inside_a_block_zeroes_its_tail() {
        let mut content = SparseBytes::default();
        content.write(0, &[9; IO_ALIGN]);
        content.set_size(100);
        content.set_size(BLOCK);
        let mut buf = [1; IO_ALIGN];
        content.read(0, &mut buf).unwrap();
        assert!(buf[..100].iter().all(|&byte| byte == 9) && buf[100..].iter().all(|&byte| byte == 0));
    }
}
