//! The outline of a thinned timeline, as the manifest keeps it.
//!
//! ```text
//! points  count u32, then each: seq, time, until (3 x u64)   standing u8 (0 state, 1 guest)   window text   why text
//! seqs    count u32, then each u64
//! full    from seq, from time, planned at, digest of the policy (4 x u64)   standing u8   whether there was a plan u8
//! ```

use super::{Malformed, put_text, take_counter, take_text};
use crate::{
    error::SeqTime,
    limits::{OUTLINE_WHY_BYTES_MAX, OUTLINE_WINDOW_BYTES_MAX},
    retention::{FullRange, OutlinePoint, Standing},
    units::{Seq, TimeNs, to_len},
};
use bytes::{Buf, BufMut};

/// Fewest bytes of an encoded point.
const POINT_LEN_MIN: usize = 29;

/// Where the full range begins, and the plan that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlineFull {
    /// The range in which every point is there.
    pub full: FullRange,
    /// The `now` of the plan and the digest of the policy that it was made under; `None` before the first plan.
    pub planned: Option<(TimeNs, u64)>,
}

/// Appends points.
pub fn encode_points(points: &[OutlinePoint], body: &mut Vec<u8>) {
    body.put_u32_le(u32::try_from(points.len()).expect("edits are cut to the size of a record"));
    for point in points {
        body.put_u64_le(point.point.seq.get());
        body.put_u64_le(point.point.time.get());
        body.put_u64_le(point.until.get());
        body.put_u8(code_of(point.standing));
        put_text(body, &point.window);
        put_text(body, &point.why);
    }
}

/// Takes points off the front.
///
/// # Errors
/// What is wrong with them.
pub fn decode_points(body: &mut &[u8]) -> Result<Vec<OutlinePoint>, Malformed> {
    let count = count_of(body, POINT_LEN_MIN)?;
    let one = |body: &mut &[u8]| {
        let seq = Seq::new(take_counter(body)?);
        let time = TimeNs::new(body.try_get_u64_le()?);
        let until = TimeNs::new(body.try_get_u64_le()?);
        if until < time {
            return Err(Malformed("outline: a point that ends before it begins"));
        }
        let standing = standing_of(body.try_get_u8()?)?;
        let window = take_text(body, OUTLINE_WINDOW_BYTES_MAX)?;
        let why = take_text(body, OUTLINE_WHY_BYTES_MAX)?;
        Ok(OutlinePoint { point: SeqTime { seq, time }, until, standing, window, why })
    };
    (0..count).map(|_| one(body)).collect()
}

/// Appends seqs.
pub fn encode_seqs(seqs: &[Seq], body: &mut Vec<u8>) {
    body.put_u32_le(u32::try_from(seqs.len()).expect("edits are cut to the size of a record"));
    seqs.iter().for_each(|seq| body.put_u64_le(seq.get()));
}

/// Takes seqs off the front.
///
/// # Errors
/// What is wrong with them.
pub fn decode_seqs(body: &mut &[u8]) -> Result<Vec<Seq>, Malformed> {
    let count = count_of(body, 8)?;
    (0..count).map(|_| Ok(Seq::new(take_counter(body)?))).collect()
}

fn count_of(body: &mut &[u8], len_min: usize) -> Result<usize, Malformed> {
    let count = to_len(u64::from(body.try_get_u32_le()?));
    if body.remaining() / len_min < count {
        return Err(Malformed("outline: more points than bytes"));
    }
    Ok(count)
}

impl OutlineFull {
    /// Appends it.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let (now, policy) = self.planned.unwrap_or_default();
        for word in [self.full.from.seq.get(), self.full.from.time.get(), now.get(), policy] {
            body.put_u64_le(word);
        }
        body.put_u8(code_of(self.full.standing));
        body.put_u8(u8::from(self.planned.is_some()));
    }

    /// Takes it off the front.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(body: &mut &[u8]) -> Result<Self, Malformed> {
        let seq = Seq::new(take_counter(body)?);
        let time = TimeNs::new(body.try_get_u64_le()?);
        let planned = (TimeNs::new(body.try_get_u64_le()?), body.try_get_u64_le()?);
        let standing = standing_of(body.try_get_u8()?)?;
        let full = FullRange { from: SeqTime { seq, time }, standing };
        match (body.try_get_u8()?, planned == Default::default()) {
            (1, _) => Ok(Self { full, planned: Some(planned) }),
            (0, true) => Ok(Self { full, planned: None }),
            _ => Err(Malformed("outline: a plan that was none")),
        }
    }
}

const fn code_of(standing: Standing) -> u8 {
    match standing {
        Standing::State => 0,
        Standing::Guest => 1,
    }
}

fn standing_of(code: u8) -> Result<Standing, Malformed> {
    match code {
        0 => Ok(Standing::State),
        1 => Ok(Standing::Guest),
        _ => Err(Malformed("outline: unknown standing")),
    }
}
