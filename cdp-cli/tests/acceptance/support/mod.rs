//! What the acceptance tests share: running the tool, making traces, knowing what images must contain.

pub mod command;
pub mod files;
pub mod lab;
pub mod machine;
pub mod oracle;
pub mod policy;
pub mod random;
pub mod scene;
pub mod times;
pub mod trace;

pub use command::Ran;
pub(crate) use command::cdp;
pub use lab::Lab;
pub use oracle::Oracle;
pub use random::Random;
pub use scene::Scene;
pub use trace::{Op, Shape, Trace};

/// How much a random test does: the first number in an ordinary run, the second with `CDP_TEST_SCALE=full`.
pub fn scaled(short: usize, full: usize) -> usize {
    if std::env::var("CDP_TEST_SCALE").is_ok_and(|scale| scale == "full") { full } else { short }
}

/// A number of bytes or an index as `usize`; the tests run on 64-bit machines only.
pub fn index(value: u64) -> usize {
    usize::try_from(value).expect("64-bit machine")
}
