//! Letting writes in: which wait for the log, who writes it for all that wait, and that nothing goes on behind a failure.

use super::*;

impl Inner {
    pub(super) fn sabotaged(&self, switch: Switch) -> bool {
        self.map.options().sabotage.on(switch)
    }

    pub(super) fn begin(self: &Arc<Self>, range: ByteRange, wait: bool) -> Result<Option<Pin>> {
        self.map.shape().check(range)?;
        let pin = |regions| Pin { file: Arc::clone(self), range, regions, ended: false };
        if range.bytes == 0 {
            #[allow(clippy::reversed_empty_ranges)]
            return Ok(Some(pin(Some(1..=0))));
        }
        let region = |at: u64| u32::try_from(at / self.region_bytes).expect("at most 2^32 regions");
        let regions = region(range.offset)..=region(range.end() - 1);
        if regions.clone().count() > (self.options.regions_active_max / 4).max(2) {
            let text = format!("a write of {} bytes is too long for the activity log; cut it", range.bytes);
            return Err(Error::InvalidArgument(text));
        }
        if self.pins.pin_active(&regions) {
            return Ok(Some(pin(Some(regions))));
        }
        self.waiting.fetch_add(1, SeqCst);
        let admitted = self.admit(&regions, wait);
        self.waiting.fetch_sub(1, SeqCst);
        Ok(match admitted? {
            Some(true) => Some(pin(Some(regions))),
            Some(false) => Some(pin(None)),
            None => None,
        })
    }

    /// Waits until `regions` are active and pinned: true; or lets the write through without the log: false.
    pub(super) fn admit(&self, regions: &RangeInclusive<u32>, wait: bool) -> Result<Option<bool>> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let found = self.wait_for_room(&mut state, regions, ticket, wait);
        state.queue.retain(|other| *other != ticket);
        if !state.queue.is_empty() {
            self.changed.notify_all();
        }
        if found.as_ref().is_ok_and(|found| *found == Some(true)) {
            while !state.activity.is_active(regions.clone()) {
                if let Err(error) = self.lead_or_wait(&mut state) {
                    self.pins.unpin(regions);
                    return Err(error);
                }
            }
        }
        found
    }

    /// Gets `regions` into the set, and pins them.
    pub(super) fn wait_for_room(
        &self,
        state: &mut MutexGuard<'_, State>,
        regions: &RangeInclusive<u32>,
        ticket: u64,
        wait: bool,
    ) -> Result<Option<bool>> {
        loop {
            state.check()?;
            if state.mode == Mode::Unlogged {
                state.unlogged += 1;
                return Ok(Some(false));
            }
            let turn = state.queue.front().is_none_or(|first| *first == ticket);
            let evict = |region, unsparing| self.pins.evict(region, unsparing);
            if turn && state.activity.admit(regions.clone(), evict) != Admission::Full {
                self.pins.pin(regions);
                return Ok(Some(true));
            }
            if !wait {
                return Ok(None);
            }
            if !state.queue.contains(&ticket) {
                state.queue.push_back(ticket);
            }
            self.changed.wait(state);
        }
    }

    /// Writes a batch for all that wait, unless another thread does so.
    pub(super) fn lead_or_wait(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        if let Some(text) = &state.failed {
            return Err(Error::Poisoned(text.clone()));
        }
        if state.leading || !state.activity.has_waiting() {
            self.changed.wait(state);
            return Ok(());
        }
        state.leading = true;
        let batch = state.activity.begin_batch();
        let written = MutexGuard::unlocked(state, || {
            let mut io = self.io.lock();
            if !batch.flush.is_empty() && !self.sabotaged(Switch::EvictBeforeMapPage) {
                let pages = io.pages_of(&batch.flush);
                io.write_pages(&self.map, pages)?;
                io.sync()?;
            }
            io.write_record(batch.record)?;
            if self.sabotaged(Switch::SubmitBeforeLogSync) { Ok(()) } else { io.sync() }
        });
        state.leading = false;
        match written {
            Ok(()) => state.activity.end_batch().into_iter().for_each(|region| self.pins.activate(region)),
            Err(error) => {
                self.stop(state, &error);
                return Err(error);
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Lets no further write through.
    pub(super) fn stop(&self, state: &mut State, error: &Error) {
        state.failed.get_or_insert_with(|| error.to_string());
        state.activity.members().for_each(|region| self.pins.deactivate(region));
        self.changed.notify_all();
    }

    pub(super) fn or_stop(&self, result: Result<()>) -> Result<()> {
        if let Err(error) = &result {
            self.stop(&mut self.state.lock(), error);
        }
        result
    }

    pub(in crate::dirty_map) fn end_write(
        &self,
        range: ByteRange,
        regions: Option<&RangeInclusive<u32>>,
        durable_everywhere: bool,
    ) {
        if !durable_everywhere {
            self.map.set(range);
        }
        match regions {
            Some(regions) => self.pins.unpin(regions),
            None => self.state.lock().unlogged -= 1,
        }
        if self.waiting.load(SeqCst) != 0 {
            let _state = self.state.lock();
            self.changed.notify_all();
        }
    }

    /// Lets no further write through if none is in flight; says what the mode was. With `io` held.
    pub(super) fn close(&self) -> Result<Mode> {
        let mut state = self.state.lock();
        state.check()?;
        let mode = state.mode;
        state.activity.members().for_each(|region| self.pins.deactivate(region));
        let pinned = state.activity.members().any(|region| self.pins.is_pinned(region));
        if pinned || state.unlogged != 0 || state.leading || state.activity.has_waiting() {
            drop(state);
            self.reopen(mode);
            return Err(Error::InvalidArgument("a write is in flight; wait for it and try again".into()));
        }
        state.mode = Mode::Closed;
        Ok(mode)
    }

    pub(super) fn reopen(&self, mode: Mode) {
        let mut state = self.state.lock();
        state.mode = mode;
        let active: Vec<u32> = state.activity.active().collect();
        active.into_iter().for_each(|region| self.pins.activate(region));
    }
}
