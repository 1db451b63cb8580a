//! Writes that the host announces before it submits them to the source.

use super::Tap;
use crate::{
    capture::{Captured, in_flight::Ticket, pool::Content},
    catalog::GapReason,
    dirty_map::{ByteRange, Pin},
    error::{Error, Result},
    limits::WRITE_BYTES_MAX,
    sabotage::Switch,
    units::{TimeNs, len_u64},
};
use bytes::Bytes;
use std::{borrow::Borrow, fmt, io::IoSlice};

/// What a write that was begun has put on the source.
#[derive(Debug)]
pub enum Written<'a> {
    /// This, from a buffer that is copied.
    Data(&'a [u8]),
    /// This, from several buffers that are copied.
    Parts(&'a [IoSlice<'a>]),
    /// This, from a buffer that is handed over.
    Bytes(Bytes),
    /// Zeroes.
    Zeroes,
    /// The range was discarded and reads as zeroes.
    Discard,
    /// It failed: the range may hold anything, and is copied from the source later.
    Failed,
}

/// A write between its submission to the source and its end, from [`Tap::capture_begin`], or from [`Tap::capture_within`] with the tap borrowed.
/// Dropped, its range is marked and copied later.
#[must_use = "dropped, the range of the write is marked"]
pub struct InFlight<T: Borrow<Tap> = Tap> {
    tap: T,
    range: ByteRange,
    ticket: Ticket,
    pin: Option<Pin>,
    over: bool,
}

impl Tap {
    /// To be called before a write is submitted to the source, with its range: multiples of 512, of any length. Then the write is submitted,
    /// and handed over by [`InFlight::end`] when it is complete and before it is acknowledged to the application.
    ///
    /// For hosts whose writes may overlap in flight: those of one range that do are not taken whole, because their order on the source is
    /// unknown; they are marked (reason *overlap*), and no gap closes before they have ended. More than
    /// [`IN_FLIGHT_MAX`](crate::limits::IN_FLIGHT_MAX) at a time are marked too. Writes that are captured without this are not looked at.
    ///
    /// Without an activity log it never waits, allocates, or calls the storage. With one it returns when the log names the range: usually at
    /// once, else after a write and a sync of the storage, and if too much is not durable yet after a flush of the store and the source.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`, `InvalidArgument` for a length and after [`Tap::detach`]. With an activity log those of the storage and the
    /// source. The host must not submit the write then, or else say [`SourceState::Unknown`](crate::SourceState::Unknown) to the next tap
    /// after an unclean end.
    pub fn capture_begin(&self, offset: u64, length: u64) -> Result<InFlight> {
        InFlight::begin(self.clone(), offset, length)
    }

    /// The same for a host that waits where it is until the write is complete: what it gets borrows the tap, which is cheaper where many threads
    /// write, and cannot outlive it.
    ///
    /// # Errors
    /// As [`Tap::capture_begin`].
    pub fn capture_within(&self, offset: u64, length: u64) -> Result<InFlight<&Tap>> {
        InFlight::begin(self, offset, length)
    }

    /// Hands over a write that was begun, dated now: see [`InFlight::end`].
    ///
    /// # Errors
    /// `InvalidArgument` for data of another length than was begun; the range is marked then.
    pub fn capture_end(&self, token: InFlight, data: &[u8]) -> Result<Captured> {
        token.end(Written::Data(data), None)
    }
}

impl<T: Borrow<Tap>> InFlight<T> {
    fn begin(tap: T, offset: u64, length: u64) -> Result<Self> {
        let its: &Tap = tap.borrow();
        its.check(offset, length, u64::MAX)?;
        let range = ByteRange::new(offset, length);
        let pin = match &its.log {
            Some(log) => log.begin(its.store.owner()?, range)?,
            None => None,
        };
        let ticket = its.state.in_flight.begin(offset..range.end());
        let token = Self { tap, range, ticket, pin, over: false };
        // Looked at behind the table, as who ends the tap looks into the table behind saying so.
        match token.tap.borrow().check_attached() {
            Ok(()) => Ok(token),
            Err(error) => {
                token.cancel();
                Err(error)
            }
        }
    }

    /// The bytes that are being written.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// Hands over the write, which is complete on the source: the order of these calls is the order of writes. `time`: when, or `None` for
    /// now. Never waits, and never fails on the store's account.
    ///
    /// # Errors
    /// `InvalidArgument` for data of another length than was begun, or of more than 16 MiB; the range is marked then.
    pub fn end(mut self, mut written: Written<'_>, time: Option<TimeNs>) -> Result<Captured> {
        let length = match &written {
            Written::Data(data) => Some(len_u64(data.len())),
            Written::Parts(parts) => {
                Some(parts.iter().map(|part| len_u64(part.len())).fold(0, u64::saturating_add))
            }
            Written::Bytes(bytes) => Some(len_u64(bytes.len())),
            Written::Zeroes | Written::Discard | Written::Failed => None,
        };
        let bytes = self.range.bytes;
        if let Some(length) = length.filter(|length| *length != bytes || *length > WRITE_BYTES_MAX) {
            return Err(Error::InvalidArgument(format!(
                "{length} bytes of data for a write of {bytes} bytes, at most {WRITE_BYTES_MAX}"
            )));
        }
        let single;
        let content = match &mut written {
            Written::Data(data) => {
                single = [IoSlice::new(data)];
                Content::Copied(&single)
            }
            Written::Parts(parts) => Content::Copied(parts),
            Written::Bytes(bytes) => Content::Owned(bytes),
            Written::Zeroes => Content::Zero { length: bytes },
            Written::Discard => Content::Discard { length: bytes },
            Written::Failed => {
                self.leave(Some((GapReason::Host, time)));
                return Ok(Captured::Marked);
            }
        };
        let tap: &Tap = self.tap.borrow();
        let table = &tap.state.in_flight;
        let blind = tap.state.sabotaged(Switch::CaptureOverlapped);
        if blind || !table.is_flagged(self.ticket) {
            let captured = tap.take_checked(self.range, time, content);
            if blind || table.end_unless_flagged(self.ticket) {
                self.over = !blind;
                self.leave(None);
                return Ok(captured);
            }
        }
        self.leave(Some((GapReason::Overlap, time)));
        Ok(Captured::Marked)
    }

    /// The write was not submitted, and will not be.
    pub fn cancel(mut self) {
        self.leave(None);
    }

    /// Leaves the table, with a mark of the range before that. Its regions of the activity log stay until it is durable.
    fn leave(&mut self, mark: Option<(GapReason, Option<TimeNs>)>) {
        let tap: &Tap = self.tap.borrow();
        if let Some((reason, time)) = mark {
            let time = time.unwrap_or_else(|| tap.now());
            tap.state.mark(self.range, time, reason, &tap.capture.wishes, || tap.capture.pool.boundary());
        }
        if !std::mem::replace(&mut self.over, true) {
            tap.state.in_flight.end(self.ticket);
        }
        if let (Some(pin), Some(log)) = (self.pin.take(), &tap.log) {
            log.ended(pin);
        }
    }
}

impl<T: Borrow<Tap>> Drop for InFlight<T> {
    fn drop(&mut self) {
        if !self.over {
            self.leave(Some((GapReason::Stalled, None)));
        }
    }
}

impl<T: Borrow<Tap>> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({:?} of volume {})", self.range, self.tap.borrow().volume())
    }
}
