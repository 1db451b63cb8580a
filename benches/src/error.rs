//! Why a run cannot go on.

use std::{io, path::Path};

/// What the functions of the harness return.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with what to do about it where that is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A scenario cannot be measured here, and this is why; the others can.
    #[error("{0}")]
    Skip(String),
    /// A call of the operating system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// The action and its object.
        what: String,
        /// The failure.
        source: io::Error,
    },
    /// The engine failed.
    #[error("the engine failed while it was to {what}: {source}")]
    Engine {
        /// The action.
        what: &'static str,
        /// The failure.
        source: Box<cdp_core::Error>,
    },
}

/// Says what was being done when a call failed.
pub trait Context<T> {
    /// What was being done: an infinitive, "open a file".
    fn when(self, what: &'static str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, cdp_core::Error> {
    fn when(self, what: &'static str) -> Result<T> {
        self.map_err(|source| Error::Engine { what, source: Box::new(source) })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn when(self, what: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.to_owned(), source })
    }
}

impl<T> Context<T> for std::result::Result<T, rustix::io::Errno> {
    fn when(self, what: &'static str) -> Result<T> {
        self.map_err(io::Error::from).when(what)
    }
}

/// An error of a call on a path.
pub fn on_path(what: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("{what} {}", path.display()), source }
}
