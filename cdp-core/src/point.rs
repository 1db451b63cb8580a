//! Points as people and programs spell them: `latest`, `seq:N`, `time:T`, `bookmark:NAME` and so on.
//!
//! A point is a question; `Store::resolve` answers it with a seq.

use crate::{
    bookmark::BookmarkKind,
    error::{Error, Result},
    text::{format_time, parse_time},
    units::{Seq, TimeNs},
};
use std::{fmt, str::FromStr};

/// A point of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// The newest state.
    Latest,
    /// The oldest state that can be opened.
    Oldest,
    /// The state after a write.
    Seq(Seq),
    /// The last state at or before a time.
    Time(TimeNs),
    /// The state that a bookmark names.
    Bookmark(String),
    /// The newest bookmark, of a kind.
    BookmarkLatest(Option<BookmarkKind>),
    /// The newest bookmark before a time, of a kind.
    BookmarkBefore(TimeNs, Option<BookmarkKind>),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |kind: &Option<BookmarkKind>| kind.map_or(String::new(), |kind| format!(":{kind}"));
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Oldest => f.write_str("oldest"),
            Self::Seq(seq) => write!(f, "seq:{seq}"),
            Self::Time(time) => write!(f, "time:{}", format_time(*time)),
            Self::Bookmark(name) => write!(f, "bookmark:{name}"),
            Self::BookmarkLatest(of) => write!(f, "bookmark-latest{}", kind(of)),
            Self::BookmarkBefore(time, of) => write!(f, "bookmark-before:{}{}", format_time(*time), kind(of)),
        }
    }
}

impl FromStr for Point {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` with the spellings allowed.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::InvalidArgument(format!(
                "'{text}' is not a point: latest, oldest, seq:N, time:T, bookmark:NAME, bookmark-latest[:KIND] or \
                 bookmark-before:T[:KIND], where T is like 2026-01-31T12:00:00.5Z and KIND app, fs or user"
            ))
        };
        let Some((head, rest)) = text.split_once(':') else {
            return match text {
                "latest" => Ok(Self::Latest),
                "oldest" => Ok(Self::Oldest),
                "bookmark-latest" => Ok(Self::BookmarkLatest(None)),
                _ => Err(unknown()),
            };
        };
        match head {
            "seq" if rest.bytes().all(|byte| byte.is_ascii_digit()) => {
                rest.parse().map(|seq| Self::Seq(Seq::new(seq))).map_err(|_| unknown())
            }
            "time" => Ok(Self::Time(parse_time(rest)?)),
            "bookmark" => {
                crate::bookmark::check_name("bookmark", rest)?;
                Ok(Self::Bookmark(rest.to_owned()))
            }
            "bookmark-latest" => Ok(Self::BookmarkLatest(Some(rest.parse()?))),
            "bookmark-before" => match rest.rsplit_once(':') {
                Some((time, kind)) if kind.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                    Ok(Self::BookmarkBefore(parse_time(time)?, Some(kind.parse()?)))
                }
                _ => Ok(Self::BookmarkBefore(parse_time(rest)?, None)),
            },
            _ => Err(unknown()),
        }
    }
}
