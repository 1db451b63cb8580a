//! The version index: which bytes a block had at which seq.
//!
//! Entries are born in a [`MemTable`], one per segment; a [`RunWriter`] seals it into a [`Run`], and merges make few large
//! runs of many small ones. A [`View`] is what a read looks at: tables and runs together.

mod ahead;
mod cache;
mod changed;
mod conserve;
mod dyadic;
mod entry;
mod memtable;
mod merge;
mod meta;
mod next_data;
mod pack;
mod reader;
mod resolve;
mod scan;
mod stream;
mod thin;
mod tree;
mod view;
mod walk;
mod writer;

pub use cache::PageCache;
pub use changed::{ByteExtent, ChangedExtents};
pub use conserve::VisibleSums;
pub use dyadic::{CELLS_OF_RANGE_MAX, CellsOf, cells_of};
pub use entry::{CELL_LEVELS, Cell, Content, Entry, Key, MASK_FULL, mask_of};
pub use memtable::MemTable;
pub use merge::{Keep, KeepAll, Merge, MergeStep};
pub use meta::{PieceMeta, RunMeta};
pub(crate) use pack::unpack;
pub use reader::{Cursor, Run, RunContext};
pub use resolve::Piece;
pub use scan::{Met, Scan};
pub use thin::{Class, Classes, Needed};
pub use view::{LostRange, View};
pub use writer::{NextPiece, PiecePlace, RunWriter};

#[cfg(test)]
mod tests;
