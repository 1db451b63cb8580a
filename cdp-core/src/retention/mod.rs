//! Retention: how long which points stay.

mod outline;
mod pattern;
mod plan;
mod policy;
mod policy_text;
mod size;

pub use outline::{Outline, OutlinePoint, TimePlace};
pub use pattern::NamePattern;
pub use plan::{
    DropReason, DroppedBookmark, FullRange, History, Kept, Pin, Plan, Retained, Standing, Why, plan,
};
pub use policy::{BookmarkFilter, BookmarkSelection, Keep, OnShortage, Policy, Slots, Window};
pub use size::{HistorySize, INDEX_BYTES, SizeRate, TierSize, size_of_rate, size_of_trace};
