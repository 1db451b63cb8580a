//! How a command ends: exit codes, and the failures that lead to them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | success |
//! | 1 | the operation failed or was refused |
//! | 2 | wrong usage; the parser of arguments ends the process itself |
//! | 3 | damage was met |
//! | 4 | a well-formed point cannot be opened |
//! | 5 | a comparison found differences, and they are still there |

use cdp_core::{Damage, Error, PointUnavailable, SeqTime, text::format_time};
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::Path, process::ExitCode};

/// Why a command did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It failed, or was refused.
    Failed,
    /// It met damage.
    Damage,
    /// The point it names cannot be opened.
    PointUnavailable,
    /// What it compared differs.
    Different,
}

impl Reason {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Damage => 3,
            Self::PointUnavailable => 4,
            Self::Different => 5,
        }
    }
}

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A command that did not succeed: the exit code and a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code.
    pub reason: Reason,
    /// What happened and what to do; empty when everything has been said already.
    pub message: String,
    /// The damage that was met, where it is known.
    #[serde(skip)]
    pub damage: Option<Box<Damage>>,
}

impl Failure {
    /// A failure of the operation.
    pub fn new(message: impl Into<String>) -> Self {
        Self { reason: Reason::Failed, message: message.into(), damage: None }
    }

    /// Damage.
    pub fn damage(message: impl Into<String>) -> Self {
        Self { reason: Reason::Damage, message: message.into(), damage: None }
    }

    /// Differences.
    pub fn different(message: impl Into<String>) -> Self {
        Self { reason: Reason::Different, message: message.into(), damage: None }
    }

    /// A failed operation on a file.
    pub fn io(operation: &str, path: &Path, source: &io::Error) -> Self {
        Self::new(format!("{operation} {}: {source}", path.display()))
    }

    /// The same failure, with what was being done before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.reason.code())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Damaged(damage) => Self { reason: Reason::Damage, message, damage: Some(damage) },
            Error::PointUnavailable(point) => {
                Self { reason: Reason::PointUnavailable, message: unavailable(&point), damage: None }
            }
            _ => Self::new(message),
        }
    }
}

/// The message for a point that cannot be opened: both neighbours, in forms that can be typed again.
fn unavailable(point: &PointUnavailable) -> String {
    let side = |side: &str, point: Option<SeqTime>| match point {
        Some(point) => format!("{side} it seq:{} (time:{})", point.seq, format_time(point.time)),
        None => format!("none {side} it"),
    };
    format!(
        "point {} cannot be opened: {}; nearest exact points: {}, {}",
        point.requested,
        point.reason,
        side("before", point.before),
        side("after", point.after)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdp_core::units::{Seq, TimeNs};

    /// Goal: each kind of error leads to its exit code. Method: one of each.
    #[test]
    fn errors_lead_to_their_exit_codes() {
        let point = PointUnavailable {
            requested: "seq:9".to_owned(),
            reason: "it lies in the future".to_owned(),
            before: Some(SeqTime { seq: Seq::new(7), time: TimeNs::new(1_500_000_000) }),
            after: None,
        };
        let failure = Failure::from(Error::PointUnavailable(Box::new(point)));
        assert_eq!(failure.reason.code(), 4);
        assert!(failure.message.contains("seq:7 (time:1970-01-01T00:00:01.5Z)"), "{}", failure.message);
        assert!(failure.message.contains("none after"), "{}", failure.message);
        assert_eq!(Failure::from(Error::Owned).reason.code(), 1);
        assert_eq!(Failure::damage("x").reason.code(), 3);
        assert_eq!(Failure::different("x").reason.code(), 5);
    }
}
