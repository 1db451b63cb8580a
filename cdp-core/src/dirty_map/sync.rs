//! Atomics and locks, those of loom under `cfg(loom)`: `RUSTFLAGS="--cfg loom" cargo test -p cdp-core --lib loom_`.

#[cfg(not(loom))]
mod imp {
    pub(in crate::dirty_map) use parking_lot::Mutex;
    pub(in crate::dirty_map) use std::sync::atomic::AtomicU64;

    /// `words` words of zeroes. Pages that are never written take no memory.
    pub(in crate::dirty_map) fn zeroed(words: usize) -> Option<Box<[AtomicU64]>> {
        bytemuck::try_zeroed_slice_box(words).ok()
    }

    /// Loom takes sequentially consistent accesses for acquire and release ones, which do not order a store before a later load
    /// of something else, and knows such an order only from fences. Here the accesses themselves have it.
    pub(in crate::dirty_map) fn fence_for_loom() {}
}

#[cfg(loom)]
mod imp {
    pub(in crate::dirty_map) use loom::sync::atomic::AtomicU64;
    use loom::sync::{Mutex as LoomMutex, MutexGuard};

    #[derive(Debug)]
    pub(in crate::dirty_map) struct Mutex<T>(LoomMutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::dirty_map) fn new(value: T) -> Self {
            Self(LoomMutex::new(value))
        }

        pub(in crate::dirty_map) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no test panics with the lock held")
        }
    }

    pub(in crate::dirty_map) fn zeroed(words: usize) -> Option<Box<[AtomicU64]>> {
        Some((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    pub(in crate::dirty_map) fn fence_for_loom() {
        loom::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

pub(super) use imp::{AtomicU64, Mutex, fence_for_loom, zeroed};
