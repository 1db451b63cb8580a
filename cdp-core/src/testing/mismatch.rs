//! How a store differs from the model, or fails where it must not.

use super::stamp::{Found, Stamp};
use crate::{error::Error, units::Seq};

/// A difference between a store and the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// A read returned something else than what was written.
    #[error("{reading} of volume '{volume}' at {point}: byte {offset} should be {expected}, is {found}")]
    Content {
        /// What was read with.
        reading: &'static str,
        /// The volume.
        volume: String,
        /// The point.
        point: Seq,
        /// First wrong byte.
        offset: u64,
        /// What should be there.
        expected: Stamp,
        /// What is there.
        found: Found,
    },
    /// A call failed that must not, or in a way that it must not.
    #[error("{call} failed: {error}")]
    Failed {
        /// The call and its arguments.
        call: String,
        /// What it answered.
        #[source]
        error: Error,
    },
    /// Anything else.
    #[error("{what}: should be {expected}, is {found}")]
    Other {
        /// What was looked at.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl Mismatch {
    /// A difference that is best told in words.
    pub fn new(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Other { what: what.into(), expected: expected.into(), found: found.into() }
    }

    /// A failure of a call.
    pub fn failed(call: impl Into<String>) -> impl FnOnce(Error) -> Self {
        let call = call.into();
        move |error| Self::Failed { call, error }
    }
}
