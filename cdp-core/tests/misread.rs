//! A read that comes back wrong once is no damage, whichever way it went; one that comes back wrong every time is.

#![allow(clippy::unwrap_used)]

use cdp_core::{
    CreateOptions, Error, OpenOptions, Store,
    io::{AlignedBuf, Extent, MemoryStorage, Storage, StorageLock},
    units::ExtentId,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// A storage of which so many reads to come have a wrong byte.
#[derive(Clone)]
struct Misreading(Arc<dyn Storage>, Arc<AtomicU64>);

struct Misread(Arc<dyn Extent>, Arc<AtomicU64>);

impl Misreading {
    fn wrap(&self, extent: io::Result<Arc<dyn Extent>>) -> io::Result<Arc<dyn Extent>> {
        Ok(Arc::new(Misread(extent?, self.1.clone())))
    }
}

impl Storage for Misreading {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        self.wrap(self.0.create(id, bytes))
    }
    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        self.wrap(self.0.open(id))
    }
    fn list(&self) -> io::Result<Vec<ExtentId>> {
        self.0.list()
    }
    fn remove(&self, id: ExtentId) -> io::Result<()> {
        self.0.remove(id)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }
    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.0.lock_owner()
    }
    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.0.lease()
    }
    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.0.lock_out_readers()
    }
}

impl Extent for Misread {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)?;
        if self.1.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            buf[7] ^= 1;
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_size(bytes)
    }
}

/// Goal: what was read wrong into the caller's own memory, which may change under the look at it, is read again elsewhere before it is called
/// damage; what is wrong every time is damage. Method: one block and a row of scattered ones, into aligned memory, with one read wrong and with all.
#[test]
fn a_read_that_is_wrong_once_is_no_damage() {
    let wrong = Arc::new(AtomicU64::new(0));
    let storage = Misreading(Arc::new(MemoryStorage::new()), wrong.clone());
    let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
    let store = Store::create(Arc::new(storage), &create, OpenOptions::default()).unwrap();
    let volume = store.volume(None).unwrap();
    let mut image = vec![0; 64 << 10];
    // Backwards, so that no two blocks follow each other in the segment as they do on the volume.
    for block in (0..16_u8).rev() {
        let (at, data) = (usize::from(block) * 4096, [block + 1; 4096]);
        image[at..at + 4096].copy_from_slice(&data);
        volume.write(at as u64, &data).unwrap();
    }
    volume.flush().unwrap();
    for len in [4096, 64 << 10] {
        let mut found = AlignedBuf::new(len).unwrap();
        volume.read(0, &mut found[..len]).unwrap();
        wrong.store(1, SeqCst);
        volume.read(0, &mut found[..len]).unwrap();
        assert!(found[..len] == image[..len] && wrong.load(SeqCst) == 0, "{len}");
        wrong.store(u64::MAX, SeqCst);
        assert!(matches!(volume.read(0, &mut found[..len]), Err(Error::Damaged(_))), "{len}");
        wrong.store(0, SeqCst);
    }
}
