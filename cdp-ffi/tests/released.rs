//! The C tests of every release of this binary interface, compiled against the header that they were released with, run with the library of now.
//!
//! `tests/freeze` makes `tests/released/VERSION` when there is a release. What lies there is never edited: a program that fails here says that
//! programs of others fail too.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use support::{compile_with, crate_dir, has, run};

/// The number of the binary interface in a header.
fn interface_of(directory: &Path) -> u32 {
    let header = fs::read_to_string(directory.join("cdp.h")).unwrap();
    let line = header.lines().find_map(|line| line.strip_prefix("#define CDP_ABI_VERSION ")).unwrap();
    line.trim().parse().unwrap()
}

fn programs_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut sources: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    sources.sort();
    assert!(!sources.is_empty(), "{} holds no program", directory.display());
    sources
}

/// Compiles a frozen program against its own header and runs it.
fn compile_and_run(source: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    compile_with("cc", "c11", source.parent().unwrap(), source, &program);
    let said = run(&program);
    assert!(said.is_empty(), "{}: {said}", source.display());
}

fn freeze(version: &str, into: &Path) -> Output {
    Command::new(crate_dir().join("tests/freeze")).arg(version).arg(into).output().unwrap()
}

/// Goal: what was built against a release of this binary interface goes on working. Method: its own tests.
#[test]
fn programs_of_every_release_go_on_working() {
    let Ok(releases) = fs::read_dir(crate_dir().join("tests/released")) else { return };
    if !has("cc") {
        return;
    }
    for release in releases {
        let directory = release.unwrap().path();
        let interface = interface_of(&directory);
        assert_eq!(
            interface,
            cdp::CDP_ABI_VERSION,
            "{} is of another interface: remove it",
            directory.display()
        );
        programs_of(&directory).iter().for_each(|source| compile_and_run(source));
    }
}

/// Goal: the way from a release to its test works before there is one. Method: freeze what is there now, with a mark in the header that shows which one the
/// programs are compiled against, and run the shortest that uses a header of its own; what is there is not frozen twice, and what is no version not at all.
#[test]
fn what_is_there_now_can_be_frozen_and_run() {
    if !has("cc") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let frozen = directory.path().join("0.0.1");
    let output = freeze("0.0.1", directory.path());
    assert!(output.status.success(), "{output:?}");
    assert!(!freeze("0.0.1", directory.path()).status.success());
    assert!(!freeze("../x", directory.path()).status.success());
    assert_eq!(interface_of(&frozen), cdp::CDP_ABI_VERSION);
    let header = fs::read_to_string(frozen.join("cdp.h")).unwrap();
    fs::write(
        frozen.join("cdp.h"),
        header.replacen("#define CDP_H\n", "#define CDP_H\n#define FROZEN 1\n", 1),
    )
    .unwrap();
    let program = frozen.join("custom.c");
    let text = fs::read_to_string(&program).unwrap();
    assert!(programs_of(&frozen).contains(&program) && text.contains("#include \"memory_storage.h\""));
    fs::write(&program, format!("{text}\n#ifndef FROZEN\n#error another header\n#endif\n")).unwrap();
    compile_and_run(&program);
}
