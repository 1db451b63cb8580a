//! Tests on a real machine: FUSE, loop devices, kernel file systems, full disks. They need root.
//!
//! All are ignored by a plain `cargo test`; `.ci/run` and `.ci/nightly` run them where the machine can. Each takes
//! down what it set up, also when it fails.

mod filesystems;
mod killed;
mod owner;
mod retention;
mod shortage;
