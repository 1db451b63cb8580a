//! Bookmarks: while production is frozen, by schedule, across stores; cuts of many volumes; figures.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod across;
mod cuts;
mod figures;
mod newest;
mod production;
mod quiesced;
mod schedule;
#[path = "../tap/source.rs"]
#[allow(dead_code, reason = "shared with the tests of taps")]
mod source;
