//! An image or device that a volume is compared with.

use super::{next_data, size_of};
use crate::exit::{Failure, Outcome};
use cdp_core::{SourceReader, SourceStamp, io::IO_ALIGN, units::SECTOR_BYTES};
use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How old the last change of a file must be: file systems date changes by a clock that ticks a few hundred times a second, and two changes
/// within a tick have one time.
const SETTLED_AFTER: Duration = Duration::from_millis(40);

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A source, read past the page cache where its file system lets us.
#[derive(Debug)]
pub struct ComparedSource {
    file: File,
    direct: Option<File>,
    bytes: u64,
}

impl ComparedSource {
    /// Opens a source that must be of the size of a volume.
    ///
    /// # Errors
    /// `Failed` when it cannot be read or has another size.
    pub fn open(path: &Path, volume: &str, volume_bytes: u64) -> Outcome<Self> {
        let file = File::open(path).map_err(|source| Failure::io("open", path, &source))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Failure::new(format!("{} is a directory, not an image", path.display())));
        }
        let bytes = size_of(&file, path)?;
        let sectors_bytes = bytes.next_multiple_of(SECTOR_BYTES);
        if sectors_bytes != volume_bytes {
            return Err(Failure::new(format!(
                "{} has {bytes} bytes and volume {volume} has {volume_bytes}; give the volume that size first \
                 (cdp volume resize STORE {volume} {sectors_bytes}), or name another volume with --volume",
                path.display()
            )));
        }
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok();
        Ok(Self { file, direct, bytes })
    }

    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> bool {
        let Some(direct) = &self.direct else { return false };
        let align = len_u64(IO_ALIGN);
        let aligned = [offset, len_u64(buf.len()), len_u64(buf.as_ptr().addr())];
        // What cannot be read this way is read the other way, which says why it cannot be read at all.
        aligned.iter().all(|value| value.is_multiple_of(align)) && direct.read_exact_at(buf, offset).is_ok()
    }
}

impl SourceReader for ComparedSource {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(len_u64(buf.len())) <= self.bytes && self.read_direct(offset, buf) {
            return Ok(());
        }
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        // The last part of a sector is filled up with zeroes.
        let (from_file, past_end) = buf.split_at_mut(buf.len().min(left));
        self.file.read_exact_at(from_file, offset)?;
        past_end.fill(0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(next_data(&self.file, offset, self.bytes)?.map(|range| range.start))
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        stamp_of(&self.file)
    }
}

/// The stamp of a file; a device has none. Waits until a change that is made afterwards is sure to have another time.
///
/// # Errors
/// Those of the file.
pub fn stamp_of(file: &File) -> io::Result<Option<SourceStamp>> {
    loop {
        let found = file.metadata()?;
        if !found.is_file() {
            return Ok(None);
        }
        let nanoseconds = |seconds: i64, nanoseconds: i64| {
            let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
            u64::try_from(all).unwrap_or(0)
        };
        let changed_ns = nanoseconds(found.ctime(), found.ctime_nsec());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_nanos(changed_ns);
        if changed > now {
            // The clock went back: times say nothing until it has caught up.
            return Ok(None);
        }
        if now - changed >= SETTLED_AFTER {
            return Ok(Some(SourceStamp {
                device: found.dev(),
                inode: found.ino(),
                bytes: found.len(),
                modified_ns: nanoseconds(found.mtime(), found.mtime_nsec()),
                changed_ns,
            }));
        }
        thread::sleep(SETTLED_AFTER - (now - changed));
    }
}
