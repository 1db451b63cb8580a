//! A mirror set as the source of a resync, a verification or a scrub: whatever copy holds a range is read.

use super::MirrorSet;
use crate::resync::SourceReader;
use std::io;

impl SourceReader for MirrorSet {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read(offset, buf).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        self.flush().map(|_| ()).map_err(io::Error::other)
    }
}
