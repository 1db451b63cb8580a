//! What the tests of the interface share: places, compilers, and lists that are committed.

#![allow(dead_code, reason = "each test uses some of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn root() -> &'static Path {
    crate_dir().parent().unwrap()
}

/// Whether a program is there; with `CI=true` one that is missing is a failure.
#[expect(clippy::print_stderr, reason = "what a machine cannot do is said")]
pub fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is missing");
        eprintln!("skipped: no {program} on this machine");
    }
    there
}

/// The shared library as cargo has built it for this test.
pub fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().join("libcdp.so")
}

/// A directory in which the library lies under the names by which it is linked and loaded.
pub fn library_dir() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("library");
    fs::create_dir_all(&directory).unwrap();
    for name in ["libcdp.so", "libcdp.so.1"] {
        match std::os::unix::fs::symlink(library(), directory.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.unwrap(),
        }
    }
    directory
}

/// Compares a committed file with what it should be. `CDP_BLESS=1` writes it; otherwise the new text is left in the target directory.
pub fn blessed(path: &Path, new: &str) {
    if fs::read_to_string(path).unwrap_or_default() == new {
        return;
    }
    if std::env::var_os("CDP_BLESS").is_some() {
        fs::write(path, new).unwrap();
        return;
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path.file_name().unwrap());
    fs::write(&kept, new).unwrap();
    panic!("{} has drifted; the new text is {}", path.display(), kept.display());
}

/// The functions of a header with the comment before each.
pub fn functions(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in header.lines() {
        if let Some(text) = line.strip_prefix("//") {
            comment.push_str(text.trim_start());
            comment.push(' ');
            continue;
        }
        let name = line.split_once('(').map(|(before, _)| before.rsplit([' ', '*']).next().unwrap());
        let is_declared = !line.starts_with([' ', '#', '}', 't']) && !line.contains("static inline");
        if let Some(name) = name.filter(|name| is_declared && name.starts_with("cdp_")) {
            found.push((name.to_owned(), comment.trim().to_owned()));
        }
        comment.clear();
    }
    found
}
