//! Capture beside a production disk: a file stands for the disk, and the tap sees every write after it was made.
//!
//! `tap DIRECTORY` makes DIRECTORY/disk.img and DIRECTORY/store, writes for a moment, and opens the disk as it was at a bookmark.

use cdp_core::{
    CreateOptions, NewBookmark, OpenOptions, Point, SourceReader, SourceState, Store, TapOptions,
    io::{DirectoryOptions, DirectoryStorage},
};
use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

const DISK_BYTES: u64 = 64 << 20;

/// The production disk, as resync reads it.
struct Disk(File);

impl SourceReader for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory: PathBuf = std::env::args_os().nth(1).ok_or("usage: tap DIRECTORY (new)")?.into();
    std::fs::create_dir(&directory)?;
    let disk = File::options().read(true).write(true).create_new(true).open(directory.join("disk.img"))?;
    disk.set_len(DISK_BYTES)?;
    let disk = Arc::new(Disk(disk));

    let storage = Arc::new(DirectoryStorage::create(directory.join("store"), DirectoryOptions::default())?);
    let create = CreateOptions { volume: "disk".into(), bytes: DISK_BYTES };
    let store = Store::create(storage, &create, OpenOptions::default())?;
    let runner = store.start_runner()?;
    // Both are new, so there is nothing to copy before the first write.
    let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
    let tap = store.tap("disk", disk.clone(), options)?;

    for number in 0..1000_u64 {
        let block = [u8::try_from(number % 255 + 1)?; 4096];
        let offset = number * 7919 % (DISK_BYTES / 4096) * 4096;
        disk.0.write_all_at(&block, offset)?;
        // When the write is complete, before it is acknowledged: a copy into memory that never waits for the store.
        tap.capture(offset, &block)?;
        if number == 499 {
            store.add_bookmark(&NewBookmark::named("half-way"))?;
        }
    }

    let point = store.resolve(&Point::Bookmark("half-way".into()))?;
    let mut block = [0; 4096];
    store.volume(None)?.snapshot(point.seq)?.read(499 * 7919 % (DISK_BYTES / 4096) * 4096, &mut block)?;
    assert_eq!(block, [u8::try_from(499 % 255 + 1)?; 4096]);

    tap.detach()?;
    drop(runner);
    store.close()?;
    Ok(())
}
