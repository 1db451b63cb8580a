//! The inner pages of a piece in memory, and under each the slots of its children.
//!
//! Inner pages are loaded when a search first passes them, and stay for as long as the run: they are 1 in 168 pages, and a
//! search that finds them here touches the cache for the leaf alone. A piece whose root is a leaf gets an inner page of one
//! child that exists in memory only, so that every piece looks alike.

use super::cache::{HeldPage, Slot};
use crate::format::{
    packed::PackedKey,
    page::{Inner, Page, last_at_or_before, proportion},
};
use std::sync::{Arc, OnceLock};

/// An inner page and what is below it.
pub(super) struct Node {
    page: Box<HeldPage>,
    height: u8,
    below: Below,
}

enum Below {
    Leaves(Box<[Slot]>),
    Nodes(Box<[OnceLock<Arc<Node>>]>),
}

impl Node {
    /// A verified inner page of this height; `None` when it is something else.
    pub fn new(page: Box<HeldPage>, height: u8) -> Option<Self> {
        let inner = Page(&page).inner(height)?;
        let below = match height {
            1 => Below::Leaves((0..inner.len()).map(|child| Slot::new(inner.key(child).cell)).collect()),
            _ => Below::Nodes((0..inner.len()).map(|_| OnceLock::new()).collect()),
        };
        Some(Self { page, height, below })
    }

    /// Height above the leaves, at least 1.
    pub fn height(&self) -> u8 {
        self.height
    }

    /// The page.
    pub fn inner(&self) -> Inner<'_> {
        Page(&self.page).inner(self.height).expect("checked when it was made")
    }

    /// The only child that can hold `key`.
    pub fn child_for(&self, key: PackedKey) -> usize {
        match &self.below {
            Below::Nodes(_) => self.inner().child_for(key),
            Below::Leaves(slots) => last_at_or_before(slots.len(), key, |child| match slots[child].cell {
                cell if cell == key.cell => self.inner().key(child),
                cell => PackedKey { cell, age: 0 },
            }),
        }
    }

    /// Touches where a search among the slots will begin; the answer has no meaning.
    pub fn touch(&self, key: PackedKey) -> u64 {
        match &self.below {
            Below::Leaves(slots) => {
                let (first, last) = (slots[0].cell, slots[slots.len() - 1].cell);
                let value = key.cell.saturating_sub(first).min(last - first);
                slots[proportion(value, last - first, slots.len())].cell
            }
            Below::Nodes(_) => 0,
        }
    }

    /// The slot of a child; only at height 1.
    pub fn slot(&self, child: usize) -> &Slot {
        match &self.below {
            Below::Leaves(slots) => &slots[child],
            Below::Nodes(_) => unreachable!("leaves are below height 1 only"),
        }
    }

    /// The node of a child; only above height 1.
    pub fn node(&self, child: usize) -> &OnceLock<Arc<Node>> {
        match &self.below {
            Below::Nodes(nodes) => &nodes[child],
            Below::Leaves(_) => unreachable!("nodes are above height 1 only"),
        }
    }
}
