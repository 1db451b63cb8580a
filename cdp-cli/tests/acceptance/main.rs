//! Acceptance tests of the `cdp` tool, as a black box: they know its contract (commands, exit codes, JSON, traces)
//! and nothing of the engine.
//!
//! What every image must contain is computed from the trace alone by [`support::oracle`], which shares no code with
//! the engine. Each run of the tool has a deadline, and a panic or a signal fails the test that met it.
//!
//! Tests that need root, FUSE and loop devices are in [`machine`], those that take minutes in [`large`]; both are
//! ignored by a plain `cargo test` and run by `.ci/run` and `.ci/nightly`. `CDP_TEST_SCALE=full` makes the random
//! ones long; `CDP_TEST_SEED=N` repeats a run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: helpers may panic and say what they do")]

mod bookmarks;
mod damage;
mod diff;
mod forms;
mod import;
mod interrupted;
mod killed;
mod large;
mod machine;
mod mirror;
mod points;
mod readers;
mod replay;
mod reports;
mod restore;
mod resync;
mod retention;
mod scrub;
mod seeding;
mod size;
mod support;
mod tap;
mod volumes;
