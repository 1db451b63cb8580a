//! Production that tells what was done to it.

use cdp_core::{Error, Quiesce, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Production that can be frozen; a test looks at what was done to it.
#[derive(Default)]
pub struct Production {
    pub frozen: AtomicBool,
    pub freezes: AtomicUsize,
    pub thaws: AtomicUsize,
    pub refuses: AtomicBool,
    pub panics: AtomicBool,
}

impl Quiesce for Production {
    fn freeze(&self) -> Result<()> {
        self.freezes.fetch_add(1, Ordering::SeqCst);
        self.frozen.store(true, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "the callback panics");
        match self.refuses.load(Ordering::SeqCst) {
            true => Err(Error::InvalidArgument("the database is busy".into())),
            false => Ok(()),
        }
    }

    fn thaw(&self) {
        self.thaws.fetch_add(1, Ordering::SeqCst);
        self.frozen.store(false, Ordering::SeqCst);
    }
}

impl Production {
    /// Each freeze was followed by a thaw.
    #[track_caller]
    pub fn assert_thawed(&self, freezes: usize) {
        assert_eq!(self.freezes.load(Ordering::SeqCst), freezes, "calls of freeze");
        assert_eq!(self.thaws.load(Ordering::SeqCst), freezes, "calls of thaw");
        assert!(!self.frozen.load(Ordering::SeqCst));
    }
}
