//! Resync of a disk that another machine has: the other end takes digests there, and only what differs crosses the link.
//!
//! `remote DIRECTORY` makes a store and a disk of 256 MiB in DIRECTORY, changes 1 % of the blocks of the disk, starts itself once more as `remote serve FILE` in a process of its
//! own, and makes the store equal to the disk over a socket. It says what crossed. The link is a loopback socket: give the key of a store only to a link that nobody else reads.
//!
//! A request is a kind (1 byte), the key (8) and a number of ranges (4), each with offset and length (8 and 8). An answer is 0 or 1 for success or failure (1), a
//! length (4), and so many bytes: digests of 8 bytes, blocks, or the text of the failure. All numbers are little endian.

use cdp_core::{
    CreateOptions, OpenOptions, ResyncOptions, SourceReader, Store, VerifyOptions,
    dirty_map::ByteRange,
    format::digest::DigestKey,
    io::{DirectoryOptions, DirectoryStorage},
    limits::DIGEST_REQUEST_BYTES_MAX,
    resync::{DigestUnit, SourceDigests, check_request, digests_of},
};
use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

const DISK_BYTES: u64 = 256 << 20;
const BLOCK: usize = 4096;
/// Of so many blocks one is changed.
const CHANGED: u64 = 100;
/// Bytes of a request before its ranges.
const HEAD: usize = 13;
const RANGES_MAX: u64 = DIGEST_REQUEST_BYTES_MAX / BLOCK as u64;

const REGIONS: u8 = 1;
const BLOCKS: u8 = 2;
const READ: u8 = 3;
const SYNC: u8 = 4;

/// The disk at its own end.
struct Disk(File, u64);

impl SourceReader for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

impl Disk {
    fn answer(&self, kind: u8, key: DigestKey, ranges: &[ByteRange]) -> io::Result<Vec<u8>> {
        let digests = |unit| -> io::Result<Vec<u8>> {
            let digests = digests_of(self, self.1, key, unit, ranges)?;
            Ok(digests.into_iter().flat_map(u64::to_le_bytes).collect())
        };
        match kind {
            REGIONS => digests(DigestUnit::Region),
            BLOCKS => digests(DigestUnit::Block),
            READ => {
                check_request(self.1, ranges)?;
                let mut bytes = Vec::new();
                for range in ranges {
                    let from = bytes.len();
                    bytes.resize(from + length(range.bytes)?, 0);
                    self.read_at(range.offset, &mut bytes[from..])?;
                }
                Ok(bytes)
            }
            SYNC => self.0.sync_all().map(|()| Vec::new()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Answers requests until the other side hangs up.
    fn serve(&self, mut link: TcpStream) -> io::Result<()> {
        loop {
            let mut head = [0; HEAD];
            link.read_exact(&mut head)?;
            let (key, count) = (u64_at(&head, 1), u32::from_le_bytes(array(&head[9..])));
            // The number of ranges is believed only up to what a request may have.
            if u64::from(count) > RANGES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut ranges = Vec::new();
            for _ in 0..count {
                let mut range = [0; 16];
                link.read_exact(&mut range)?;
                ranges.push(ByteRange::new(u64_at(&range, 0), u64_at(&range, 8)));
            }
            let (status, answer) = match self.answer(head[0], DigestKey(key), &ranges) {
                Ok(answer) => (0, answer),
                Err(error) => (1, error.to_string().into_bytes()),
            };
            let len = u32::try_from(answer.len()).map_err(io::Error::other)?;
            link.write_all(&[&[status][..], &len.to_le_bytes(), &answer].concat())?;
        }
    }
}

/// The disk as the store sees it, over as many connections as threads ask at once.
struct Remote {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Remote {
    fn ask(&self, kind: u8, key: u64, ranges: &[ByteRange]) -> io::Result<Vec<u8>> {
        let idle = self.idle.lock().map_err(|_| io::ErrorKind::Other)?.pop();
        let mut link = match idle {
            Some(link) => link,
            None => TcpStream::connect(self.address)?,
        };
        let count = u32::try_from(ranges.len()).map_err(io::Error::other)?;
        let mut request = [&[kind][..], &key.to_le_bytes(), &count.to_le_bytes()].concat();
        for range in ranges {
            request.extend(range.offset.to_le_bytes());
            request.extend(range.bytes.to_le_bytes());
        }
        link.write_all(&request)?;
        let mut head = [0; 5];
        link.read_exact(&mut head)?;
        let len = u64::from(u32::from_le_bytes(array(&head[1..])));
        if len > DIGEST_REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length(len)?];
        link.read_exact(&mut answer)?;
        self.sent.fetch_add(request.len() as u64, Ordering::Relaxed);
        self.received.fetch_add(head.len() as u64 + len, Ordering::Relaxed);
        // A connection that has failed is not used again.
        self.idle.lock().map_err(|_| io::ErrorKind::Other)?.push(link);
        match head[0] {
            0 => Ok(answer),
            _ => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
        }
    }

    fn crossed(&self) -> u64 {
        self.sent.swap(0, Ordering::Relaxed) + self.received.swap(0, Ordering::Relaxed)
    }
}

impl SourceReader for Remote {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_ranges(&[ByteRange::new(offset, buf.len() as u64)], buf)
    }

    fn sync(&self) -> io::Result<()> {
        self.ask(SYNC, 0, &[]).map(|_| ())
    }

    fn digests(&self) -> Option<&dyn SourceDigests> {
        Some(self)
    }
}

impl SourceDigests for Remote {
    fn digests(&self, key: DigestKey, unit: DigestUnit, ranges: &[ByteRange]) -> io::Result<Vec<u64>> {
        let kind = if unit == DigestUnit::Region { REGIONS } else { BLOCKS };
        let answer = self.ask(kind, key.0, ranges)?;
        Ok(answer.chunks_exact(8).map(|digest| u64::from_le_bytes(array(digest))).collect())
    }

    fn read_ranges(&self, ranges: &[ByteRange], buf: &mut [u8]) -> io::Result<()> {
        let answer = self.ask(READ, 0, ranges)?;
        if answer.len() != buf.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        buf.copy_from_slice(&answer);
        Ok(())
    }
}

fn length(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

/// The first bytes of a slice that is known to be long enough.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|index| bytes[index])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&bytes[at..]))
}

/// Serves a file until standard input ends; the first line of output is the port.
fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::open(path)?;
    let disk = Arc::new(Disk(file.try_clone()?, file.metadata()?.len()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    thread::spawn(move || {
        for link in listener.incoming().flatten() {
            let disk = disk.clone();
            // Ends with an error when the other side hangs up.
            thread::spawn(move || disk.serve(link));
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The content of a block that was written so many times.
fn block_of(index: u64, times: u64) -> Vec<u8> {
    let word = (index << 8 | times | 1 << 60).to_le_bytes();
    word.iter().copied().cycle().take(BLOCK).collect()
}

fn resync(directory: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir(directory)?;
    let path = directory.join("disk.img");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    let storage = Arc::new(DirectoryStorage::create(directory.join("store"), DirectoryOptions::default())?);
    let create = CreateOptions { volume: "disk".into(), bytes: DISK_BYTES };
    let store = Store::create(storage, &create, OpenOptions::default())?;
    let (volume, blocks) = (store.volume(None)?, DISK_BYTES / BLOCK as u64);
    for index in 0..blocks {
        let (block, offset) = (block_of(index, 0), index * BLOCK as u64);
        file.write_all_at(&block, offset)?;
        volume.write(offset, &block)?;
    }
    store.flush()?;
    let mut changed = std::collections::BTreeSet::new();
    let mut state = 1_u64;
    while (changed.len() as u64) < blocks / CHANGED {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (state >> 33) % blocks;
        if changed.insert(index) {
            file.write_all_at(&block_of(index, 1), index * BLOCK as u64)?;
        }
    }

    let mut other = Command::new(std::env::current_exe()?);
    let mut other = other.arg("serve").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut port = String::new();
    BufReader::new(other.stdout.take().ok_or("no output of the other process")?).read_line(&mut port)?;
    let remote = Arc::new(Remote {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port.trim().parse()?)),
        idle: Mutex::default(),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
    });

    let options = ResyncOptions { readers: 4, ..ResyncOptions::default() };
    let report = store.resync_from(None, remote.clone(), &options, &mut |_| {}, &|| false)?;
    let (counts, crossed) = (report.counts, remote.crossed());
    let changed_bytes = changed.len() as u64 * BLOCK as u64;
    let mut out = io::stdout();
    writeln!(
        out,
        "{DISK_BYTES} bytes compared in {:.2} s, {} regions equal",
        report.seconds, counts.digests.regions_equal
    )?;
    writeln!(out, "{changed_bytes} bytes changed, {} bytes of blocks moved", counts.source_bytes_read)?;
    writeln!(
        out,
        "{} bytes of digests; {crossed} bytes crossed in both directions",
        counts.digests.digest_bytes
    )?;
    assert_eq!((counts.bytes_different, counts.source_bytes_read), (changed_bytes, changed_bytes));
    assert_eq!(counts.store_bytes_read, 0);
    let moved = changed_bytes + counts.digests.digest_bytes;
    // Beside these there are the requests: 16 bytes for each range, and a few for each exchange.
    assert!(crossed <= moved + moved / 50, "{crossed} bytes crossed for {moved}");

    let options = VerifyOptions { readers: 4, digests: true, ..VerifyOptions::default() };
    let verified = store.verify_from(None, remote.clone(), &options, &mut |_| {}, &|| false)?;
    assert!(verified.complete && verified.extents.is_empty());
    writeln!(out, "verified: {} bytes crossed", remote.crossed())?;
    let mut block = vec![0; BLOCK];
    for index in 0..blocks {
        volume.read(index * BLOCK as u64, &mut block)?;
        assert!(block == block_of(index, u64::from(changed.contains(&index))), "block {index}");
    }
    drop(other.stdin.take());
    other.wait()?;
    store.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [directory] => resync(Path::new(directory)),
        [serving, file] if serving == "serve" => serve(Path::new(file)),
        _ => Err("usage: remote DIRECTORY (new), or remote serve FILE".into()),
    }
}
