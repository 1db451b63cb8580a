//! Resync of a source that nobody captures from, of a tap on request, and verify, through the public interface.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod alone;
mod far;
mod sizes;
mod support;
mod tapped;
mod verified;
