//! The newest point that is exact for several volumes, in one store and across stores.

use super::Store;
use crate::{
    bookmark::{Across, AcrossState},
    error::{Error, Result, SeqTime},
    format::Uuid,
    units::{Seq, TimeNs},
};

/// A bookmark that several stores have, exact in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonPoint {
    /// Its name in each of them.
    pub name: String,
    /// What the bookmarks have in common.
    pub id: Uuid,
    /// Their time.
    pub time: TimeNs,
    /// The state that it names in each store, in the order of the call.
    pub seqs: Vec<Seq>,
}

impl Store {
    /// The newest state that is exact for all the volumes named (none: for every volume of the store): no gap, no lost range, and a point
    /// where writes are coalesced. `None` when there is no such state.
    ///
    /// # Errors
    /// `NotFound` for a volume; `Damaged`, `Io`; those of appending where coalesced writes wait.
    pub fn newest_exact_point(&self, volumes: &[&str]) -> Result<Option<SeqTime>> {
        self.inner.group.settle_for_reading()?;
        let infos = match volumes {
            [] => self.volumes(),
            named => {
                named.iter().map(|name| Ok(self.volume(Some(name))?.info())).collect::<Result<Vec<_>>>()?
            }
        };
        let mut common = vec![(Seq::ZERO, self.newest().seq)];
        for info in &infos {
            common = intersection(&common, &self.exact_spans(info));
        }
        for (from, to) in common.into_iter().rev() {
            if let Some(seq) = self.inner.group.newest_point_within(from, to)? {
                return Ok(Some(SeqTime { seq, time: self.inner.group.time_of_seq(seq)? }));
            }
        }
        Ok(None)
    }

    /// The bookmarks across stores of this one, and what is known of them.
    fn bookmarks_across(&self) -> impl Iterator<Item = (String, Across, SeqTime)> {
        self.bookmarks().into_iter().filter_map(|bookmark| {
            let at = SeqTime { seq: bookmark.seq, time: bookmark.time };
            Some((bookmark.name, bookmark.across?, at))
        })
    }
}

/// The newest bookmark across stores that every one of these stores has and that is exact for all their volumes. `None` when there is none.
///
/// One that is unconfirmed in all of them counts only when no other store was to have it. Times are those of the bookmarks; of two with one
/// time the one with the higher seq in the first store wins.
///
/// # Errors
/// `InvalidArgument` for no stores; `Damaged`, `Io`.
pub fn newest_common_point(stores: &[&Store]) -> Result<Option<CommonPoint>> {
    let Some((first, others)) = stores.split_first() else {
        return Err(Error::InvalidArgument("a common point is one of at least one store".into()));
    };
    let mut candidates: Vec<_> = first.bookmarks_across().collect();
    candidates.sort_by_key(|(_, _, at)| (at.time, at.seq));
    for (name, across, at) in candidates.into_iter().rev() {
        let mut seqs = vec![at.seq];
        let mut confirmed = across.state != AcrossState::Unconfirmed;
        for store in others {
            let Ok(bookmark) = store.bookmark(&name) else { break };
            let Some(other) = bookmark.across.filter(|other| other.id == across.id) else { break };
            confirmed |= other.state != AcrossState::Unconfirmed;
            seqs.push(bookmark.seq);
        }
        let everywhere = seqs.len() == stores.len();
        let alone = across.stores.iter().all(|id| stores.iter().any(|store| store.id() == *id));
        if !everywhere || !(confirmed || alone) {
            continue;
        }
        let exact = stores.iter().zip(&seqs).map(|(store, seq)| store.is_exact_everywhere(*seq));
        if exact.collect::<Result<Vec<bool>>>()?.into_iter().all(|exact| exact) {
            return Ok(Some(CommonPoint { name, id: across.id, time: at.time, seqs }));
        }
    }
    Ok(None)
}

impl Store {
    /// Whether a state is exact for every volume of the store.
    fn is_exact_everywhere(&self, seq: Seq) -> Result<bool> {
        let within = |info| self.exact_spans(info).into_iter().any(|(from, to)| from <= seq && seq <= to);
        Ok(self.volumes().iter().all(within) && self.inner.group.is_point(seq)?)
    }
}

/// What two ascending rows of ranges, both ends included, have in common.
fn intersection(left: &[(Seq, Seq)], right: &[(Seq, Seq)]) -> Vec<(Seq, Seq)> {
    let mut common = Vec::new();
    let (mut at_left, mut at_right) = (0, 0);
    while let (Some(one), Some(other)) = (left.get(at_left), right.get(at_right)) {
        let (from, to) = (one.0.max(other.0), one.1.min(other.1));
        if from <= to {
            common.push((from, to));
        }
        if one.1 <= other.1 {
            at_left += 1;
        } else {
            at_right += 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<(Seq, Seq)>> {
        proptest::collection::vec((1..6_u64, 0..6_u64), 0..8).prop_map(|steps| {
            let mut at = 0;
            let span = |(gap, length): (u64, u64)| {
                let from = at + gap;
                at = from + length;
                (Seq::new(from), Seq::new(at))
            };
            steps.into_iter().map(span).collect()
        })
    }

    proptest! {
        /// Goal: the intersection holds exactly what both rows hold. Method: every number, against a plain look.
        #[test]
        fn an_intersection_holds_what_both_hold(left in spans(), right in spans()) {
            let common = intersection(&left, &right);
            let holds = |row: &[(Seq, Seq)], seq| row.iter().any(|(from, to)| *from <= seq && seq <= *to);
            for seq in (0..100).map(Seq::new) {
                prop_assert_eq!(holds(&common, seq), holds(&left, seq) && holds(&right, seq));
            }
            prop_assert!(common.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
