//! For tests: a producer that stops in the middle of handing a write over.

use super::Tap;
use crate::{
    capture::{
        Captured, Mode,
        pool::{Halfway, Kind, Refused, Write},
    },
    catalog::GapReason,
    dirty_map::ByteRange,
    error::Result,
    limits::WRITE_BYTES_MAX,
    units::TimeNs,
};

/// A capture that has begun.
pub struct HalfCaptured {
    tap: Tap,
    range: ByteRange,
    time: TimeNs,
    /// `None`: it only marked, and that is done.
    halfway: Option<Halfway>,
}

impl Tap {
    /// Does the first half of a capture: reserves room, and with `described` says what is written.
    pub(crate) fn capture_halfway(
        &self,
        offset: u64,
        length: u64,
        described: bool,
        time: TimeNs,
    ) -> Result<HalfCaptured> {
        self.check(offset, length, WRITE_BYTES_MAX)?;
        let volume = u32::from(self.state.volume().get());
        let write = Write { volume, kind: Kind::Data, offset, length, time };
        let mut captured =
            HalfCaptured { tap: self.clone(), range: ByteRange::new(offset, length), time, halfway: None };
        if self.state.mode() == Mode::Bitmap {
            captured.mark(GapReason::Overload);
        } else {
            match self.capture.pool.put_halfway(write, described) {
                Ok(halfway) => captured.halfway = Some(halfway),
                Err(_) => captured.mark(GapReason::Overload),
            }
        }
        Ok(captured)
    }
}

impl HalfCaptured {
    fn mark(&self, reason: GapReason) {
        let (state, capture) = (&self.tap.state, &self.tap.capture);
        state.mark(self.range, self.time, reason, &capture.wishes, || capture.pool.boundary());
    }

    /// Does the second half.
    pub(crate) fn go_on(self, data: &[u8]) -> Captured {
        let Some(halfway) = &self.halfway else { return Captured::Marked };
        match self.tap.capture.pool.put_rest(halfway, data) {
            Ok(_) => Captured::Whole,
            Err(Refused::Abandoned | Refused::Invalid | Refused::Exhausted { .. }) => {
                self.mark(GapReason::Stalled);
                Captured::Marked
            }
        }
    }
}
