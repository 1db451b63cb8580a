//! The files of the demo: made, worked on, damaged and counted.
//!
//! Contents follow from names and a seed, so that two trees of the same seed are equal. A [`Checksums`] remembers what every
//! file contained.

use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
};
use cdp_core::trace::Fill;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use twox_hash::{XxHash3_64, XxHash3_128};

const DIRECTORIES: [&str; 6] = ["accounts", "contracts", "letters", "photos", "projects", "research"];
const FILES_A_DIRECTORY: u64 = 200;
/// Sizes go from this, doubling up to [`SIZE_DOUBLINGS`] times.
const FILE_BYTES_MIN: u64 = 256;
const SIZE_DOUBLINGS: u64 = 9;
/// Entries of the ledger, each durable before the next.
const LEDGER_ENTRIES: u64 = 100;
const LEDGER: &str = "accounts/ledger.csv";

/// Makes a tree of files.
pub fn make(root: &Path, interrupt: &Interrupt) -> Outcome {
    for directory in DIRECTORIES {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).map_err(|source| Failure::io("make", &directory, &source))?;
        for number in 0..FILES_A_DIRECTORY {
            check(interrupt)?;
            let path = directory.join(format!("document-{number:03}.txt"));
            fs::write(&path, content(&path, root, 1))
                .map_err(|source| Failure::io("write", &path, &source))?;
        }
    }
    Ok(())
}

/// A day's work: every tenth file gets a new version, and a ledger grows entry by entry.
pub fn work(root: &Path, interrupt: &Interrupt) -> Outcome {
    for directory in DIRECTORIES {
        for number in (0..FILES_A_DIRECTORY).step_by(10) {
            check(interrupt)?;
            let path = root.join(directory).join(format!("document-{number:03}.txt"));
            fs::write(&path, content(&path, root, 2))
                .map_err(|source| Failure::io("write", &path, &source))?;
        }
    }
    let path = root.join(LEDGER);
    let failed = |source: io::Error| Failure::io("write", &path, &source);
    let mut ledger = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    for entry in 0..LEDGER_ENTRIES {
        check(interrupt)?;
        writeln!(ledger, "{entry},payment,{}", entry * 1999)
            .and_then(|()| ledger.sync_data())
            .map_err(failed)?;
    }
    Ok(())
}

/// Encrypts every file in place, renames it, and removes one directory altogether.
pub fn damage(root: &Path, interrupt: &Interrupt) -> Outcome {
    for path in list(root)? {
        check(interrupt)?;
        let failed = |source: io::Error| Failure::io("damage", &path, &source);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        let mut noise = vec![0; content.len().next_multiple_of(cdp_core::trace::STAMP_BYTES)];
        Fill::Random.fill(0, seed_of(&path), &mut noise);
        noise.truncate(content.len());
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&noise)).map_err(failed)?;
        let mut locked = path.clone().into_os_string();
        locked.push(".locked");
        fs::rename(&path, &locked).map_err(failed)?;
    }
    let lost = root.join(DIRECTORIES[0]);
    fs::remove_dir_all(&lost).map_err(|source| Failure::io("remove", &lost, &source))?;
    let note = root.join("HOW-TO-GET-YOUR-FILES-BACK.txt");
    fs::write(&note, "Send money.\n").map_err(|source| Failure::io("write", &note, &source))
}

/// What every file of a tree contained.
pub struct Checksums(BTreeMap<PathBuf, u128>);

impl Checksums {
    /// Reads a whole tree.
    pub fn of(root: &Path) -> Outcome<Self> {
        let mut checksums = BTreeMap::new();
        for path in list(root)? {
            let content = fs::read(&path).map_err(|source| Failure::io("read", &path, &source))?;
            checksums
                .insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), XxHash3_128::oneshot(&content));
        }
        Ok(Self(checksums))
    }

    /// How many files there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many of them a tree has, with the same content.
    pub fn count_intact(&self, root: &Path) -> usize {
        let intact = |(path, checksum): &(&PathBuf, &u128)| {
            fs::read(root.join(path)).is_ok_and(|content| XxHash3_128::oneshot(&content) == **checksum)
        };
        self.0.iter().filter(intact).count()
    }
}

/// Makes everything that was written to the file system of `root` durable.
pub fn sync(root: &Path) -> Outcome {
    let synced = File::open(root).and_then(|directory| rustix::fs::syncfs(directory).map_err(Into::into));
    synced.map_err(|source| Failure::io("sync", root, &source))
}

/// All files below a directory, in order, without what the file system itself keeps there.
fn list(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |source: io::Error| Failure::io("list", &directory, &source);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && entry.file_name() != "lost+found" {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Text that follows from the name of a file and its version.
fn content(path: &Path, root: &Path, version: u64) -> Vec<u8> {
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let seed = XxHash3_64::oneshot_with_seed(version, name.as_bytes());
    let bytes = usize::try_from(FILE_BYTES_MIN << (seed % SIZE_DOUBLINGS)).unwrap_or_default();
    let mut text = Vec::with_capacity(bytes + 64);
    let mut line = 0_u64;
    while text.len() < bytes {
        let noise = XxHash3_64::oneshot_with_seed(seed, &line.to_le_bytes());
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{name} version {version} line {line}: {noise:016x}");
        line += 1;
    }
    text.truncate(bytes);
    text
}

fn seed_of(path: &Path) -> u64 {
    XxHash3_64::oneshot(path.as_os_str().as_encoded_bytes())
}

fn check(interrupt: &Interrupt) -> Outcome {
    interrupt.check().map_err(|_| Failure::new("interrupted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: checksums tell files that are whole from damaged and missing ones. Method: all three.
    #[test]
    fn damage_leaves_no_file_intact_and_a_copy_has_them_all() {
        let directory = tempfile::tempdir().unwrap();
        let (root, copy) = (directory.path().join("a"), directory.path().join("b"));
        let interrupt = Interrupt::default();
        for root in [&root, &copy] {
            make(root, &interrupt).unwrap();
            work(root, &interrupt).unwrap();
        }
        let checksums = Checksums::of(&root).unwrap();
        assert_eq!(checksums.count(), 1201);
        assert_eq!(checksums.count_intact(&copy), 1201);
        fs::write(copy.join("letters/document-007.txt"), "x").unwrap();
        fs::remove_file(copy.join("letters/document-008.txt")).unwrap();
        assert_eq!(checksums.count_intact(&copy), 1199);
        damage(&root, &interrupt).unwrap();
        assert_eq!(checksums.count_intact(&root), 0);
    }
}
