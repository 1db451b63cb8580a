//! The planner: a pure function from a history, a policy and a time to what stays and what goes.

mod history;
mod outcome;

pub use history::{FullRange, History, Kept, Pin, Standing};
pub use outcome::{DropReason, DroppedBookmark, Plan, Retained, Why};

use super::Policy;
use crate::{Result, units::TimeNs};

/// Decides what stays at `now`. What is older than `horizon` goes as by age, but for locked bookmarks and pins: so space is made;
/// `TimeNs::ZERO` when there is enough.
///
/// # Errors
/// Those of `history`, and `InvalidArgument` for a policy that is not valid.
pub fn plan(
    history: &impl History,
    policy: &Policy,
    now: TimeNs,
    pins: &[Pin],
    horizon: TimeNs,
) -> Result<Plan> {
    policy.validate()?;
    let _ = (history, now, pins, horizon);
    Err(crate::Error::InvalidArgument("the planner has no rules yet".to_owned()))
}
