//! Bookmarks of one store: set, also while production is held still, removed, locked, listed.

use super::Store;
use crate::{
    bookmark::{Bookmark, NewBookmark, Quiesce, while_frozen},
    error::{Error, Result, SeqTime},
    format::meta::MetaRecord,
    point::Point,
    units::{FrameNo, Seq, TimeNs},
};
use std::time::Duration;

impl Store {
    /// Sets a bookmark; durable when this returns, with everything written before it.
    ///
    /// # Errors
    /// `Exists`, `InvalidArgument`, `PointUnavailable` for its point, `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn add_bookmark(&self, new: &NewBookmark) -> Result<Bookmark> {
        new.validate()?;
        let group = self.owner()?;
        let at = new.at.as_ref().filter(|at| **at != Point::Latest);
        // Retention does not take the point away before the bookmark is there.
        let _gate = at.map(|_| group.bookmarks_at_points.read());
        let named = at.map(|at| self.resolve_kept(at)).transpose()?;
        let (bookmark, frame) = self.place_bookmark(new, named, || Ok(()))?;
        group.make_durable(frame)?;
        Ok(bookmark)
    }

    /// Sets a bookmark of the newest state while production is frozen: the state that it names is the one that production was frozen in.
    ///
    /// What takes time is done before the freeze (captured writes are taken over, room is made) and after the thaw (the bookmark becomes
    /// durable, which it is when this returns). In between production waits at most `timeout` from the return of `freeze`, and is thawed
    /// whatever happens. The call itself waits for the store, as [`Store::add_bookmark`] does, and uses one thread meanwhile.
    ///
    /// # Errors
    /// `NotPlaced` when the bookmark had no place in time: nothing is recorded. The error of `freeze`. `InvalidArgument` also for a
    /// bookmark of another point than the newest. Else as [`Store::add_bookmark`].
    ///
    /// # Panics
    /// When a callback does; the panic goes on after the thaw.
    pub fn add_bookmark_quiesced(
        &self,
        new: &NewBookmark,
        quiesce: &dyn Quiesce,
        timeout: Duration,
    ) -> Result<Bookmark> {
        new.validate()?;
        new.validate_newest()?;
        let group = self.owner()?;
        self.check_new_name(&new.name)?;
        group.make_way()?;
        while_frozen(
            quiesce,
            timeout,
            |gate| self.place_bookmark(new, None, || gate.pass()),
            |(bookmark, frame)| group.make_durable(frame).map(|()| bookmark),
        )
    }

    /// Appends a bookmark, with all that was captured before it; not yet durable. `admit` has the last word.
    fn place_bookmark(
        &self,
        new: &NewBookmark,
        named: Option<SeqTime>,
        admit: impl FnOnce() -> Result<()>,
    ) -> Result<(Bookmark, FrameNo)> {
        let group = self.owner()?;
        let mut made = None;
        let covered = new.time.filter(|_| named.is_none());
        let frame = group.place_meta(
            |seq, newest| {
                let own_time = || group.shared.clock.now().max(newest);
                let bookmark = self.new_bookmark(new, named, seq, own_time)?;
                made = Some(bookmark.clone());
                Ok(vec![MetaRecord::BookmarkAdded(bookmark)])
            },
            covered,
            admit,
        )?;
        Ok((made.expect("the record was made"), frame))
    }

    /// The bookmark to be recorded behind `newest`. Called with the turn held.
    pub(super) fn new_bookmark(
        &self,
        new: &NewBookmark,
        named: Option<SeqTime>,
        newest: Seq,
        time: impl FnOnce() -> TimeNs,
    ) -> Result<Bookmark> {
        self.check_new_name(&new.name)?;
        let inexact = match named {
            Some(point) => self.inexact_at(point.seq),
            None => self.inner.group.inexact_volumes(),
        };
        let seq = named.map_or(newest, |point| point.seq);
        if new.require_exact && !inexact.is_empty() {
            let reason = format!("not exact there: {}", inexact.join(", "));
            return Err(self.unavailable(new.at.as_ref().unwrap_or(&Point::Latest), seq, reason));
        }
        let own_time = || named.map_or_else(time, |point| point.time);
        Ok(Bookmark {
            name: new.name.clone(),
            kind: new.kind,
            app: new.app.clone(),
            comment: new.comment.clone(),
            seq,
            time: new.time.unwrap_or_else(own_time),
            locked: new.locked,
            expires: new.expires,
            inexact_volumes: inexact,
            across: None,
        })
    }

    pub(super) fn check_new_name(&self, name: &str) -> Result<()> {
        match self.inner.group.catalog.read().bookmark(name) {
            Some(_) => Err(Error::Exists { what: "bookmark", name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Removes a bookmark; durable when this returns.
    ///
    /// # Errors
    /// `NotFound`, `BookmarkLocked`, `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn delete_bookmark(&self, name: &str) -> Result<()> {
        let group = self.owner()?;
        group.append_meta(
            |_, _| {
                if self.bookmark(name)?.locked {
                    return Err(Error::BookmarkLocked(name.to_owned()));
                }
                Ok(vec![MetaRecord::BookmarkRemoved(name.to_owned())])
            },
            None,
        )
    }

    /// Locks or unlocks a bookmark; durable when this returns.
    ///
    /// # Errors
    /// `NotFound`, `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn lock_bookmark(&self, name: &str, locked: bool) -> Result<()> {
        let group = self.owner()?;
        // Retention does not take away what is being locked.
        let _gate = group.bookmarks_at_points.read();
        group.append_meta(
            |_, _| {
                self.bookmark(name)?;
                Ok(vec![MetaRecord::BookmarkLocked { name: name.to_owned(), locked }])
            },
            None,
        )
    }

    /// A bookmark by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn bookmark(&self, name: &str) -> Result<Bookmark> {
        let catalog = self.inner.group.catalog.read();
        let missing = || Error::NotFound { what: "bookmark", name: name.to_owned() };
        catalog.bookmark(name).cloned().ok_or_else(missing)
    }

    /// All bookmarks, by seq, then time, then name.
    pub fn bookmarks(&self) -> Vec<Bookmark> {
        let mut bookmarks: Vec<Bookmark> = self.inner.group.catalog.read().bookmarks().cloned().collect();
        bookmarks.sort_by(|a, b| (a.seq, a.time, &a.name).cmp(&(b.seq, b.time, &b.name)));
        bookmarks
    }
}
