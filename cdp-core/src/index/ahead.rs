//! Reading leaves ahead of a walk: who comes to a leaf that is not in memory, with those before it there, gets the ones behind it with the same
//! read.
//!
//! How many follows from how many before it are there: twice as many, up to a bound. So a walk in order soon reads in long pieces, and a search
//! that happens to meet a leaf beside another reads one or two too many. Pages that were read ahead are verified like others. One that is
//! not sound is left out: who needs it reads it again and says what is wrong. A read of several that fails is followed by one of the page
//! that was asked for, so that damage beside a page is not in its way.

use super::{cache::HeldPage, reader::Run, tree::Node};
use crate::{
    error::Result,
    format::page::{PAGE_BYTES, PAGE_LEN, Page},
    io::AlignedBuf,
};
use std::sync::Arc;

/// Most leaves that are read ahead at once.
const AHEAD_MAX: usize = 63;
/// Of the leaves that the cache holds, one in so many may be read ahead at once.
const CACHE_SHARE: usize = 4;

impl Run {
    /// The leaf below an inner page, verified; those that follow it are kept in their slots where a walk is going there.
    pub(super) fn leaf_and_ahead(
        &self,
        piece: usize,
        parent: &Arc<Node>,
        child: usize,
    ) -> Result<Box<HeldPage>> {
        let ahead = self.worth_reading_ahead(parent, child);
        let read = if ahead > 0 { self.read_ahead(piece, parent, child, ahead) } else { None };
        let bytes = match read {
            Some(bytes) => bytes,
            None => self.page(piece, parent.inner().child(child))?,
        };
        let wrong = match Page(&bytes).leaf().map(|leaf| leaf.key(0)) {
            None => "index page of another height than expected",
            Some(first) if first != parent.inner().key(child) => "index page that begins elsewhere",
            Some(_) => return Ok(bytes),
        };
        Err(self.damaged(piece, parent.inner().child(child), wrong))
    }

    /// How many leaves behind this one a walk is likely to want, and lie behind it on the storage.
    fn worth_reading_ahead(&self, parent: &Node, child: usize) -> usize {
        let is_there = |child: usize| parent.slot(child).is_filled();
        let before = (0..child).rev().take(AHEAD_MAX).take_while(|before| is_there(*before)).count();
        let most = (2 * before).min(AHEAD_MAX).min(self.context.pages.leaves_max() / CACHE_SHARE);
        let inner = parent.inner();
        let follows = |(page, next): &(u32, usize)| inner.child(*next) == *page && !is_there(*next);
        (inner.child(child)..).skip(1).zip(child + 1..inner.len()).take(most).take_while(follows).count()
    }

    /// Reads a leaf and those behind it, and keeps the latter. `None` when that fails or the leaf is not sound.
    fn read_ahead(
        &self,
        piece: usize,
        parent: &Arc<Node>,
        child: usize,
        ahead: usize,
    ) -> Option<Box<HeldPage>> {
        let inner = parent.inner();
        let first = inner.child(child);
        let mut buffer = AlignedBuf::new((1 + ahead) * PAGE_LEN).ok()?;
        let all = &mut buffer[..(1 + ahead) * PAGE_LEN];
        self.extent(piece).ok()?.read_at(u64::from(first) * PAGE_BYTES, all).ok()?;
        let mut wanted = None;
        for ((bytes, page), at) in all.chunks_exact(PAGE_LEN).zip(first..).zip(child..) {
            let bytes = bytes.first_chunk()?;
            if Page(bytes).verify(&self.identity(piece, page)).is_err() {
                continue;
            }
            if at == child {
                wanted = Some(Box::new(HeldPage::new(*bytes)));
            } else if Page(bytes).leaf().is_some_and(|leaf| leaf.key(0) == inner.key(at)) {
                let leaf = Box::new(HeldPage::new(*bytes));
                self.context.pages.keep(parent.slot(at), (Arc::downgrade(parent), at), leaf);
            }
        }
        wanted
    }
}
