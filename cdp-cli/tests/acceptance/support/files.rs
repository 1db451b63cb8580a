//! Facts about files and directories: what is in a store, whether it changed, how much of a file is allocated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads that watch something to end, also when the test that they serve fails.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a reader must leave as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct FileState {
    bytes: u64,
    modified: (i64, i64),
    inode: u64,
    digest: u64,
}

/// All regular files below a directory, by relative path.
pub fn regular_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("list {}: {error}", next.display())) {
            let entry = entry.expect("directory entry");
            let kind = entry.file_type().expect("file type");
            if kind.is_dir() {
                open.push(entry.path());
            } else {
                assert!(kind.is_file(), "{} is not a regular file", entry.path().display());
                found.push(entry.path().strip_prefix(directory).expect("below the directory").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The state of every file below a directory.
pub fn states(directory: &Path) -> BTreeMap<PathBuf, FileState> {
    let state = |path: &PathBuf| {
        let full = directory.join(path);
        let facts = fs::metadata(&full).expect("file facts");
        FileState {
            bytes: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            inode: facts.ino(),
            digest: digest(&full),
        }
    };
    regular_files(directory).into_iter().map(|path| (path.clone(), state(&path))).collect()
}

/// A hash of a file's content; only ever compared within one run.
pub fn digest(path: &Path) -> u64 {
    let mut file = File::open(path).expect("open for the digest");
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).expect("read for the digest");
        if length == 0 {
            return hasher.finish();
        }
        hasher.write(&buffer[..length]);
    }
}

/// Bytes that the file system has allocated for a file.
pub fn allocated_bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("file facts").blocks() * 512
}

/// Bytes that the file system has allocated for all files of a directory.
pub fn allocated_below(directory: &Path) -> u64 {
    regular_files(directory).iter().map(|path| allocated_bytes(&directory.join(path))).sum()
}

/// Where two files first differ; also when one is longer.
pub fn first_difference(left: &Path, right: &Path) -> Option<u64> {
    let open =
        |path: &Path| File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let (mut left, mut right) = (open(left), open(right));
    let (mut left_buffer, mut right_buffer) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let left_length = read_full(&mut left, &mut left_buffer);
        let right_length = read_full(&mut right, &mut right_buffer);
        let common = left_length.min(right_length);
        if left_buffer[..common] != right_buffer[..common] || left_length != right_length {
            let same = left_buffer[..common].iter().zip(&right_buffer[..common]).take_while(|(a, b)| a == b);
            return Some(offset + same.count() as u64);
        }
        if common == 0 {
            return None;
        }
        offset += common as u64;
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).expect("read for the comparison") {
            0 => break,
            length => filled += length,
        }
    }
    filled
}

/// Copies a store as an operator would.
pub fn copy_directory(from: &Path, to: &Path) {
    super::command::program!("cp", "-a", "--sparse=always", from, to).succeeds();
}
