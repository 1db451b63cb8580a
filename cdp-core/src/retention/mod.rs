//! Retention: how long which points stay.

mod pattern;
mod policy;
mod policy_text;

pub use pattern::NamePattern;
pub use policy::{BookmarkFilter, BookmarkSelection, Keep, OnShortage, Policy, Slots, Window};
