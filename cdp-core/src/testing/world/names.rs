//! Steps about bookmarks, and calls that must be refused.

use super::{Outcome, World};
use crate::{
    bookmark::{Bookmark, BookmarkKind, NewBookmark},
    error::{Error, Result},
    limits::WRITE_BYTES_MAX,
    point::Point,
    testing::{mismatch::Mismatch, op::When},
    units::{SECTOR_BYTES, Seq, TimeNs, len_u64, to_len},
};

const KINDS: [BookmarkKind; 3] = [BookmarkKind::Application, BookmarkKind::FileSystem, BookmarkKind::User];

impl World {
    /// Sets a bookmark of which `variant` decides about kind and text.
    pub(super) fn add_bookmark(&mut self, variant: u64, at: Option<u64>) -> Result<(), Mismatch> {
        let newest = self.model.newest();
        let oldest = self.model.volumes()[0].exists_from.get();
        let at = at.filter(|_| oldest <= newest.seq.get());
        let at = at.map(|at| Seq::new(oldest + at % (newest.seq.get() - oldest + 1)));
        let (seq, time) = match at {
            Some(seq) => (seq, self.model.time_of(seq)),
            None => (newest.seq, self.time_of(When::Clock).1),
        };
        let text = |bit: u64, text: &str| (variant >> bit & 1 == 1).then(|| text.to_owned());
        let new = NewBookmark {
            name: self.new_name("mark"),
            kind: KINDS[to_len(variant % 3)],
            app: text(8, "postgresql"),
            comment: text(9, "before the upgrade"),
            locked: variant >> 10 & 3 == 3,
            expires: (variant >> 12 & 1 == 1).then(|| TimeNs::new(time.get() + 1_000_000_000)),
            at: at.map(Point::Seq),
            time: (at.is_none() && variant >> 13 & 3 == 3).then_some(time),
            require_exact: variant >> 15 & 1 == 1,
        };
        let expected = Bookmark {
            name: new.name.clone(),
            kind: new.kind,
            app: new.app.clone(),
            comment: new.comment.clone(),
            seq,
            time,
            locked: new.locked,
            expires: new.expires,
            inexact_volumes: Vec::new(),
            across: None,
        };
        let result = self.store()?.add_bookmark(&new);
        if matches!(result, Err(Error::PointUnavailable(_))) && !self.model.is_surely_point(seq, newest.seq) {
            return Ok(());
        }
        if result.is_ok() && !self.model.remains().contains(seq) {
            return Err(Mismatch::new(
                format!("bookmark at seq {seq}, which was thinned away"),
                "refused",
                "set",
            ));
        }
        match self.judge("add_bookmark", result)? {
            Outcome::Done(bookmark) => {
                // The state at seq 0 has no time of its own.
                let expected =
                    if seq == Seq::ZERO { Bookmark { time: bookmark.time, ..expected } } else { expected };
                if bookmark != expected {
                    return Err(Mismatch::new("bookmark", format!("{expected:?}"), format!("{bookmark:?}")));
                }
                self.model.set_bookmark(&new.name, Some(bookmark));
                self.model.acknowledge(newest.seq);
            }
            Outcome::Failed | Outcome::Cut => self.model.set_bookmark_perhaps(&new.name, Some(expected)),
        }
        Ok(())
    }

    fn any_bookmark(&self, which: u64) -> Option<Bookmark> {
        let bookmarks: Vec<&Bookmark> = self.model.certain_bookmarks().collect();
        let index = which.checked_rem(len_u64(bookmarks.len()))?;
        Some(bookmarks[to_len(index)].clone())
    }

    pub(super) fn delete_bookmark(&mut self, which: u64) -> Result<(), Mismatch> {
        let Some(bookmark) = self.any_bookmark(which) else { return Ok(()) };
        let result = self.store()?.delete_bookmark(&bookmark.name);
        if bookmark.locked {
            return self.must_refuse("delete of a locked bookmark", result, |error| {
                matches!(error, Error::BookmarkLocked(_))
            });
        }
        match self.judge("delete_bookmark", result)? {
            Outcome::Done(()) => {
                self.model.set_bookmark(&bookmark.name, None);
                self.model.acknowledge(self.model.newest().seq);
            }
            Outcome::Failed | Outcome::Cut => self.model.set_bookmark_perhaps(&bookmark.name, None),
        }
        Ok(())
    }

    pub(super) fn lock_bookmark(&mut self, which: u64, locked: bool) -> Result<(), Mismatch> {
        let Some(bookmark) = self.any_bookmark(which) else { return Ok(()) };
        let result = self.store()?.lock_bookmark(&bookmark.name, locked);
        let after = Bookmark { locked, ..bookmark.clone() };
        match self.judge("lock_bookmark", result)? {
            Outcome::Done(()) => {
                self.model.set_bookmark(&bookmark.name, Some(after));
                self.model.acknowledge(self.model.newest().seq);
            }
            Outcome::Failed | Outcome::Cut => self.model.set_bookmark_perhaps(&bookmark.name, Some(after)),
        }
        Ok(())
    }

    /// Makes a call that must be refused without any effect.
    pub(super) fn refused(&mut self, variant: u64) -> Result<(), Mismatch> {
        let (volume, store) = (self.volume(0)?, self.store()?);
        let (bytes, newest) = (volume.bytes(), self.model.newest());
        let mut buf = vec![0; 1024];
        let argument: fn(&Error) -> bool =
            |error| matches!(error, Error::InvalidArgument(_) | Error::OutOfRange { .. });
        match variant % 14 {
            0 => self.must_refuse("write past the end", volume.write(bytes, &buf), |e| {
                matches!(e, Error::OutOfRange { .. })
            }),
            1 => self.must_refuse("read past the end", volume.read(bytes, &mut buf), |e| {
                matches!(e, Error::OutOfRange { .. })
            }),
            2 => self.must_refuse("unaligned write", volume.write(1, &buf), |e| {
                matches!(e, Error::Unaligned { .. })
            }),
            3 => self.must_refuse("unaligned read", volume.read(0, &mut buf[..100]), |e| {
                matches!(e, Error::Unaligned { .. })
            }),
            4 => self.must_refuse("empty write", volume.write(0, &[]), argument),
            5 => {
                let large = vec![1; to_len(WRITE_BYTES_MAX + SECTOR_BYTES)];
                self.must_refuse("too large a write", volume.write(0, &large), argument)
            }
            6 if newest.time > TimeNs::ZERO => {
                let earlier = TimeNs::new(newest.time.get() - 1);
                let result = volume.write_at_time(0, &buf[..512], earlier);
                self.must_refuse("write dated back", result, |e| matches!(e, Error::TimeBackwards { .. }))
            }
            7 => {
                let result = volume.discard(bytes, SECTOR_BYTES, None);
                self.must_refuse("discard past the end", result, |e| matches!(e, Error::OutOfRange { .. }))
            }
            8 => self.must_refuse("volume twice", store.add_volume("disk", 512), |e| {
                matches!(e, Error::Exists { .. })
            }),
            9 => self.must_refuse("volume of odd size", store.add_volume("odd", 513), |e| {
                matches!(e, Error::InvalidArgument(_) | Error::Unaligned { .. })
            }),
            10 => self.must_refuse("name of a volume", store.add_volume("a/b", 512), argument),
            11 => self.must_refuse("unknown bookmark", store.delete_bookmark("never-set"), |e| {
                matches!(e, Error::NotFound { .. })
            }),
            12 => {
                let Some(bookmark) = self.any_bookmark(variant >> 8) else { return Ok(()) };
                let result = store.add_bookmark(&NewBookmark::named(bookmark.name));
                self.must_refuse("bookmark twice", result, |e| matches!(e, Error::Exists { .. }))
            }
            _ => {
                let mut new = NewBookmark::named("future");
                new.at = Some(Point::Seq(newest.seq.next()));
                self.must_refuse("bookmark of the future", store.add_bookmark(&new), |e| {
                    matches!(e, Error::PointUnavailable(_))
                })
            }
        }
    }

    /// Checks that a call was refused as it should, and changed nothing.
    fn must_refuse<T>(
        &mut self,
        call: &str,
        result: Result<T>,
        rightly: impl FnOnce(&Error) -> bool,
    ) -> Result<(), Mismatch> {
        match result {
            Ok(_) => Err(Mismatch::new(call, "refused", "done")),
            Err(error) if rightly(&error) => self.nothing_captured(call),
            // Whatever else is wrong at the time may be told first.
            Err(error) => self.judge::<T>(call, Err(error)).map(|_| ()),
        }
    }
}
