//! The expectation for a rate of writes, spread evenly in time and uniformly at random over a working set.
//!
//! Of n blocks, k random writes touch n (1 - (1 - 1/n)^k). That is what a point adds to the next younger one: the versions that
//! it shows and that were overwritten before the next. In the full range every write adds a version. The youngest point before
//! the full range is the state just before its first write, so it adds one version only.

use super::{HistorySize, TierSize, age_max, common_assumptions};
use crate::{
    Error, Result,
    retention::{Keep, Policy},
    text::{format_duration, format_size},
    units::BLOCK_BYTES,
};

const DAY_NS: u64 = 86_400_000_000_000;

/// How much is written where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRate {
    /// Bytes written in a day.
    pub bytes_per_day: u64,
    /// Bytes of the part of the disk that the writes go to.
    pub working_set_bytes: u64,
}

/// The expected size of the history under a policy once it has grown to its full age.
///
/// # Errors
/// `InvalidArgument` for a policy that is not valid or has no bound by age, and for a working set of less than a block.
pub fn size_of_rate(policy: &Policy, rate: SizeRate) -> Result<HistorySize> {
    policy.validate()?;
    if rate.working_set_bytes < BLOCK_BYTES {
        return Err(Error::InvalidArgument(format!("the working set has at least {BLOCK_BYTES} bytes")));
    }
    let Some(age_max) = age_max(policy) else {
        return Err(Error::InvalidArgument(format!(
            "the policy has no bound by age, so the history grows by {} of blocks each day, to max_bytes or for ever; \
             give it windows or max_age",
            format_size(rate.bytes_per_day)
        )));
    };
    let writes = Writes {
        a_nanosecond: to_float(rate.bytes_per_day) / to_float(BLOCK_BYTES) / to_float(DAY_NS),
        blocks: to_float(rate.working_set_bytes.div_ceil(BLOCK_BYTES)),
    };
    let newest = TierSize {
        name: "newest".to_owned(),
        points: 1,
        versions: rate.working_set_bytes.div_ceil(BLOCK_BYTES),
        written_bytes: 0,
    };
    let mut assumptions = vec![
        format!(
            "{} a day in writes of {BLOCK_BYTES} bytes, evenly in time and uniformly at random over {}, all of which has been \
             written",
            format_size(rate.bytes_per_day),
            format_size(rate.working_set_bytes)
        ),
        "without bookmarks: one costs no more than a point of its window".to_owned(),
    ];
    assumptions.extend(common_assumptions());

    let (full_span, undecided) = full_span(policy, age_max);
    if undecided > 0 {
        assumptions.push(format!(
            "all states stay for up to {} longer, until their slot is decided; half of that is counted",
            format_duration(undecided)
        ));
    }
    let mut tiers = vec![newest, writes.all("all".to_owned(), full_span.saturating_add(undecided / 2))];
    let (mut interval, mut from) = (Some(0), 0);
    for (index, window) in policy.windows.iter().enumerate() {
        let span = window.to.min(age_max).saturating_sub(from);
        from = window.to;
        interval = match &window.keep {
            Keep::All => interval,
            // A window chooses among what the one before keeps.
            Keep::Every(slots) => interval.map(|before| before.max(slots.interval)),
            Keep::None => None,
        };
        if interval != Some(0) {
            // Behind "newest" and "all".
            let next_to_full = tiers.len() == 2;
            tiers.push(writes.every(policy.window_name(Some(index)), span, interval, next_to_full));
        }
    }
    let mut size = HistorySize { tiers, assumptions };
    size.remark(policy);
    Ok(size)
}

/// How long all states stay, and how much longer those of a slot that is not decided.
fn full_span(policy: &Policy, age_max: u64) -> (u64, u64) {
    let choosing = policy.windows.iter().position(|window| window.keep != Keep::All);
    let Some(choosing) = choosing else { return (age_max, 0) };
    let span = policy.window_from(choosing).min(age_max);
    let interval = match policy.windows.get(choosing).map(|window| &window.keep) {
        Some(Keep::Every(slots)) => slots.interval.min(age_max.saturating_sub(span)),
        _ => 0,
    };
    (span, interval)
}

struct Writes {
    a_nanosecond: f64,
    blocks: f64,
}

impl Writes {
    fn count(&self, span: u64) -> f64 {
        self.a_nanosecond * to_float(span)
    }

    /// Blocks that the writes of a span are expected to touch.
    fn distinct(&self, span: u64) -> f64 {
        let writes = self.count(span);
        if writes <= 0.0 {
            return 0.0;
        }
        -self.blocks * (writes * (-1.0 / self.blocks).ln_1p()).exp_m1()
    }

    fn all(&self, name: String, span: u64) -> TierSize {
        let versions = to_whole(self.count(span));
        TierSize { name, points: versions, versions, written_bytes: versions.saturating_mul(BLOCK_BYTES) }
    }

    fn every(&self, name: String, span: u64, interval: Option<u64>, next_to_full: bool) -> TierSize {
        let written_bytes = to_whole(self.count(span)).saturating_mul(BLOCK_BYTES);
        let Some(interval) = interval else {
            return TierSize { name, points: 0, versions: 0, written_bytes };
        };
        // A slot without a write keeps no point.
        let slots = to_float(span) / to_float(interval);
        let points = slots * -(-self.count(interval)).exp_m1();
        let distinct = self.distinct(interval);
        let youngest = if next_to_full { distinct.min(1.0) } else { distinct };
        let versions = to_whole((slots - 1.0).max(0.0) * distinct + slots.min(1.0) * youngest);
        TierSize { name, points: to_whole(points), versions, written_bytes }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an expectation needs no more than 53 bits")]
fn to_float(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is never negative"
)]
fn to_whole(value: f64) -> u64 {
    value.round() as u64
}
