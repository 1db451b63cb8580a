//! Kinds of bookmarks, and how they are spelled.

use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// What a bookmark vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BookmarkKind {
    /// An application was consistent: `app`.
    Application,
    /// A file system was consistent: `fs`.
    FileSystem,
    /// A person or a program named the moment: `user`.
    User,
    /// The library set it itself, for instance where a gap ends: `system`.
    System,
}

impl BookmarkKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Application, Self::FileSystem, Self::User, Self::System];

    /// The spelling: `app`, `fs`, `user` or `system`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "app",
            Self::FileSystem => "fs",
            Self::User => "user",
            Self::System => "system",
        }
    }
}

impl fmt::Display for BookmarkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for BookmarkKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            Error::InvalidArgument(format!(
                "bookmark kind {shown:?} is unknown; write app, fs, user or system"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each kind reads back from its spelling and nothing else does. Method: all kinds, and near misses.
    #[test]
    fn kinds_read_back_from_their_spelling() {
        for kind in BookmarkKind::ALL {
            assert_eq!(kind.to_string().parse::<BookmarkKind>().unwrap(), kind);
        }
        for text in ["", "App", "application", "fs ", "users"] {
            assert!(text.parse::<BookmarkKind>().is_err(), "{text}");
        }
    }
}
