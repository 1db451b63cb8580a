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

fn words(variable: &str) -> Vec<String> {
    std::env::var(variable).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Compiles a program against the shared library and the header in a directory.
pub fn compile_with(compiler: &str, standard: &str, include: &Path, source: &Path, to: &Path) {
    let library = library_dir();
    let output = Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"])
        .args(words("CDP_C_FLAGS"))
        .arg("-I")
        .arg(include)
        .arg(source)
        .arg("-o")
        .arg(to)
        .arg("-L")
        .arg(&library)
        .arg("-lcdp")
        .arg(format!("-Wl,-rpath,{}", library.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", source.display());
}

/// Runs a program in a directory of its own and returns what it wrote to stdout.
pub fn run(program: &Path) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut runner = words("CDP_C_RUNNER");
    runner.push(program.display().to_string());
    // That of cargo names a directory in which the library of an earlier build may lie.
    let output = Command::new(&runner[0])
        .args(&runner[1..])
        .arg(directory.path())
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{said}", program.display(), output.status);
    String::from_utf8(output.stdout).unwrap()
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
