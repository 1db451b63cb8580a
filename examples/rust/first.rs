//! A first program: write, bookmark, overwrite, and read what was there before.

use cdp_core::{
    CreateOptions, NewBookmark, OpenOptions, Point, Store,
    io::{DirectoryOptions, DirectoryStorage},
};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: first DIRECTORY (new or empty)")?;
    let storage = Arc::new(DirectoryStorage::create(path, DirectoryOptions::default())?);
    let disk = CreateOptions { volume: "disk".into(), bytes: 1 << 30 };
    let store = Store::create(storage, &disk, OpenOptions::default())?;
    let volume = store.volume(Some("disk"))?;

    volume.write(4096, &[1; 4096])?;
    store.add_bookmark(&NewBookmark::named("before"))?;
    volume.write(4096, &[2; 4096])?;

    let point = store.resolve(&Point::Bookmark("before".into()))?;
    let mut block = [0; 4096];
    volume.snapshot(point.seq)?.read(4096, &mut block)?;
    assert_eq!(block, [1; 4096]);

    drop(volume);
    store.close()?;
    Ok(())
}
