//! The tap through the public interface, with real threads: capture beside a source that goes on being written.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod begun;
mod coalescing;
mod failures;
mod healing;
mod maps;
mod source;
mod whole;
