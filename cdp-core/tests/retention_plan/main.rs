//! The planner of retention: against a slow one written from the sentences of its contract, its invariants over random
//! policies and histories, and each edge on its own.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod directed;
mod generate;
mod memory;
mod properties;
mod sentences;
