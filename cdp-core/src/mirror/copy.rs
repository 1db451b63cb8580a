//! A copy of a mirrored volume: the trait that a host can implement, and a copy that lies on an extent.

use crate::{
    dirty_map::ByteRange,
    io::{AlignedBuf, Extent, IO_ALIGN},
    units::{len_u64, to_len},
};
use std::{fmt, io, sync::Arc};

/// Bytes moved at a time where a buffer of our own is needed.
const BOUNCE_BYTES: usize = 1 << 20;

/// Where one copy of the volume lives.
///
/// Offsets and lengths are multiples of 512 within the size; buffers may lie anywhere in memory. All methods may be called from any threads; two changes that
/// touch the same 4 KiB are never in flight at once. A write, zero or discard is durable once a `sync` that was issued after it returned has returned `Ok`;
/// after a failed sync nothing is known of what it covered.
pub trait MirrorCopy: Send + Sync {
    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// The host's errors; the content of `buf` is then undefined.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at byte `offset`.
    ///
    /// # Errors
    /// The host's errors; any part of the range may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes a range read as zeroes, freeing its space where that can be done. Discards are zeroes too, so that all copies read the same.
    ///
    /// # Errors
    /// As [`MirrorCopy::write_at`].
    fn write_zeroes(&self, range: ByteRange) -> io::Result<()>;

    /// Makes every change that returned before this call durable.
    ///
    /// # Errors
    /// The host's errors.
    fn sync(&self) -> io::Result<()>;

    /// Size in bytes.
    ///
    /// # Errors
    /// The host's errors.
    fn size(&self) -> io::Result<u64>;

    /// Gives the copy another size, durably; returns whether bytes that are new are known to read as zeroes. A device that is large enough
    /// already stays as it is.
    ///
    /// # Errors
    /// `StorageFull` when it cannot be so large; the host's errors.
    fn set_size(&self, bytes: u64) -> io::Result<bool>;

    /// Whether the whole copy is known to read as zeroes, without reading it.
    ///
    /// # Errors
    /// The host's errors.
    fn is_zero(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// A number that is another one after the content was changed by anybody, such as the time of the last change of a file; `None` where the host
    /// has no such thing. What it says is believed only when it differs.
    ///
    /// # Errors
    /// The host's errors.
    fn change_stamp(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Names the place where the bytes lie, so that the same place is not taken twice.
    fn identity(&self) -> Option<(u64, u64)> {
        None
    }
}

/// A copy on one extent, which must have been given a multiple of [`IO_ALIGN`] bytes.
pub struct ExtentCopy {
    extent: Arc<dyn Extent>,
}

impl fmt::Debug for ExtentCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExtentCopy")
    }
}

/// The blocks that a range touches.
fn outward(offset: u64, bytes: u64) -> ByteRange {
    let align = len_u64(IO_ALIGN);
    let start = offset / align * align;
    ByteRange::new(start, (offset + bytes).next_multiple_of(align) - start)
}

fn is_aligned(offset: u64, buf: &[u8]) -> bool {
    offset.is_multiple_of(len_u64(IO_ALIGN))
        && buf.len().is_multiple_of(IO_ALIGN)
        && buf.as_ptr().addr().is_multiple_of(IO_ALIGN)
}

impl ExtentCopy {
    /// A copy on `extent`.
    pub fn new(extent: Arc<dyn Extent>) -> Self {
        Self { extent }
    }

    /// Writes a part that begins and ends anywhere: blocks that it covers in part are read first.
    fn write_bounced(&self, offset: u64, data: &[u8], buf: &mut AlignedBuf) -> io::Result<()> {
        let whole = outward(offset, len_u64(data.len()));
        let (len, at) = (to_len(whole.bytes), to_len(offset - whole.offset));
        let end = at + data.len();
        if at != 0 {
            self.extent.read_at(whole.offset, &mut buf[..IO_ALIGN])?;
        }
        if !end.is_multiple_of(IO_ALIGN) && (at == 0 || len > IO_ALIGN) {
            self.extent.read_at(whole.end() - len_u64(IO_ALIGN), &mut buf[len - IO_ALIGN..len])?;
        }
        buf[at..end].copy_from_slice(data);
        self.extent.write_at(whole.offset, &buf[..len])
    }
}

/// The parts of `len` bytes from `offset` that fit a bounce buffer, as offset and length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let first = (BOUNCE_BYTES - to_len(offset % len_u64(IO_ALIGN))).min(len);
    let rest = (first..len).step_by(BOUNCE_BYTES).map(move |at| (at, BOUNCE_BYTES.min(len - at)));
    let all = std::iter::once((0, first)).filter(|part| part.1 > 0).chain(rest);
    all.map(move |(at, len)| (offset + len_u64(at), len))
}

fn bounce(len: usize) -> io::Result<AlignedBuf> {
    AlignedBuf::new((len + 2 * IO_ALIGN).min(BOUNCE_BYTES + 2 * IO_ALIGN))
}

impl MirrorCopy for ExtentCopy {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if is_aligned(offset, buf) {
            return self.extent.read_at(offset, buf);
        }
        let mut own = bounce(buf.len())?;
        for (at, len) in parts(offset, buf.len()) {
            let whole = outward(at, len_u64(len));
            let (whole_len, skip) = (to_len(whole.bytes), to_len(at - whole.offset));
            self.extent.read_at(whole.offset, &mut own[..whole_len])?;
            let to = to_len(at - offset);
            buf[to..to + len].copy_from_slice(&own[skip..skip + len]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if is_aligned(offset, data) {
            return self.extent.write_at(offset, data);
        }
        let mut own = bounce(data.len())?;
        for (at, len) in parts(offset, data.len()) {
            let from = to_len(at - offset);
            self.write_bounced(at, &data[from..from + len], &mut own)?;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        let zeroes = AlignedBuf::new(to_len(range.bytes.min(len_u64(BOUNCE_BYTES))))?;
        let mut at = range.offset;
        while at < range.end() {
            // Whole blocks after the first piece, so that the rest is written directly.
            let limit = (at + len_u64(BOUNCE_BYTES)) / len_u64(IO_ALIGN) * len_u64(IO_ALIGN);
            let end = limit.min(range.end());
            self.write_at(at, &zeroes[..to_len(end - at)])?;
            at = end;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.extent.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.extent.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        let old = self.extent.size()?;
        let bytes = bytes.next_multiple_of(len_u64(IO_ALIGN));
        self.extent.set_size(bytes)?;
        self.extent.sync()?;
        Ok(bytes >= old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::{MemoryStorage, Storage, simulated::SimRng},
        units::ExtentId,
    };

    /// Goal: any sectors can be read and written through an extent that takes whole blocks alone. Method: random ranges against a plain buffer.
    #[test]
    fn sectors_are_read_and_written_through_whole_blocks() {
        let mut rng = SimRng::new(5);
        let bytes = 5 << 20;
        let storage = MemoryStorage::default();
        let copy = ExtentCopy::new(storage.create(ExtentId::new(1), bytes).unwrap());
        let mut model = vec![0; to_len(bytes)];
        for _ in 0..200 {
            let sectors = bytes / 512;
            let start = rng.below(sectors);
            let most = rng.pick(&[1, 8, 64, 5000]);
            let count = 1 + rng.below(most.min(sectors - start));
            let (offset, len) = (start * 512, to_len(count * 512));
            let place = to_len(offset)..to_len(offset) + len;
            match rng.below(3) {
                0 => {
                    copy.write_zeroes(ByteRange::new(offset, len_u64(len))).unwrap();
                    model[place].fill(0);
                }
                1 => {
                    let mut data = vec![0; len];
                    data.fill_with(|| u8::try_from(rng.below(256)).unwrap());
                    copy.write_at(offset, &data).unwrap();
                    model[place].copy_from_slice(&data);
                }
                _ => {
                    let mut data = vec![1; len];
                    copy.read_at(offset, &mut data).unwrap();
                    assert!(data == model[place], "{offset}+{len}");
                }
            }
        }
        let mut all = vec![0; model.len()];
        copy.read_at(0, &mut all).unwrap();
        assert!(all == model);
    }
}
