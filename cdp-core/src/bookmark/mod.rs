//! Bookmarks: named points of a group.
//!
//! A bookmark names the last seq before it and takes none; it has a time of its own. Names are unique in a store.

mod across;
mod kind;
mod quiesce;
mod schedule;

pub use across::{Across, AcrossState};
pub use kind::BookmarkKind;
pub use quiesce::Quiesce;
pub(crate) use quiesce::{Gate, while_frozen};
pub use schedule::BookmarkSchedule;

use crate::{
    error::{Error, Result},
    limits::{APP_TYPE_BYTES_MAX, COMMENT_BYTES_MAX, NAME_BYTES_MAX},
    point::Point,
    units::{Seq, TimeNs},
};
/// A named point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// Unique in the store.
    pub name: String,
    /// What it vouches for.
    pub kind: BookmarkKind,
    /// The application, for kind application: free text such as `postgresql`.
    pub app: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The state it names.
    pub seq: Seq,
    /// Its own time, which may be later than that of its state.
    pub time: TimeNs,
    /// Whether it must be unlocked before it can go.
    pub locked: bool,
    /// When it may go by itself.
    pub expires: Option<TimeNs>,
    /// Volumes that were not exact when it was set.
    pub inexact_volumes: Vec<String>,
    /// That it was set in several stores as one; see [`crate::store::bookmark_across`].
    pub across: Option<Across>,
}

/// A bookmark to be set.
#[derive(Clone, Debug)]
pub struct NewBookmark {
    /// Unique in the store: `[A-Za-z0-9._-]`, 1 to 128 bytes.
    pub name: String,
    /// What it vouches for.
    pub kind: BookmarkKind,
    /// The application.
    pub app: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// Whether it starts locked.
    pub locked: bool,
    /// When it may go by itself.
    pub expires: Option<TimeNs>,
    /// The point it names; `None`: after everything written so far.
    pub at: Option<Point>,
    /// Its time; `None`: that of the point given, else the clock, and not before the newest write.
    pub time: Option<TimeNs>,
    /// Refuse when a volume of the group is not exact at this point.
    pub require_exact: bool,
}

impl NewBookmark {
    /// A user bookmark of the newest state.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: BookmarkKind::User,
            app: None,
            comment: None,
            locked: false,
            expires: None,
            at: None,
            time: None,
            require_exact: false,
        }
    }

    /// Refuses one that names an older point, where only the newest makes sense.
    pub(crate) fn validate_newest(&self) -> Result<()> {
        match &self.at {
            None | Some(Point::Latest) => Ok(()),
            Some(at) => Err(Error::InvalidArgument(format!(
                "this bookmark names the state at the moment in which it is set, and not {at}"
            ))),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_name("bookmark", &self.name)?;
        if self.kind == BookmarkKind::System {
            return Err(Error::InvalidArgument(
                "bookmarks of kind system are set by the library; choose app, fs or user".into(),
            ));
        }
        let bounded = |what: &str, text: &Option<String>, max: usize| match text {
            Some(text) if text.len() > max => {
                Err(Error::InvalidArgument(format!("the {what} of a bookmark has at most {max} bytes")))
            }
            _ => Ok(()),
        };
        bounded("application type", &self.app, APP_TYPE_BYTES_MAX)?;
        bounded("comment", &self.comment, COMMENT_BYTES_MAX)
    }
}

/// Whether this can be the name of a volume or bookmark.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)
}

/// Checks a name of a volume or bookmark.
///
/// # Errors
/// `InvalidArgument` that says what is allowed.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if !is_name(name) {
        return Err(Error::InvalidArgument(format!(
            "'{name}' is not a {what} name: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -"
        )));
    }
    Ok(())
}
