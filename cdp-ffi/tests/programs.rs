//! C programs against the library as it is shipped: what they do, what the library exports, how structs lie.
//!
//! Each file of `tests/c` is a program. `CDP_C_FLAGS` and `CDP_C_RUNNER` compile and run them in another way (`.ci/lib.sh`): with sanitizers,
//! under valgrind.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use support::{blessed, compile_with, crate_dir, functions, has, library, root, run};

/// Compiles a program against the shared library and the header of now.
fn compile(compiler: &str, standard: &str, source: &Path, to: &Path) {
    compile_with(compiler, standard, &root().join("include"), source, to);
}

fn sources() -> Vec<PathBuf> {
    let entries = fs::read_dir(crate_dir().join("tests/c")).unwrap();
    let mut sources: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    sources.sort();
    assert!(!sources.is_empty());
    sources
}

fn compile_and_run(name: &str) {
    if !has("cc") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(name);
    compile("cc", "c11", &crate_dir().join("tests/c").join(format!("{name}.c")), &program);
    let said = run(&program);
    assert!(said.is_empty(), "the library wrote to stdout: {said}");
}

macro_rules! programs {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                compile_and_run(stringify!($name));
            }
        )*
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];
    };
}
programs!(
    across,
    custom,
    dirty_map,
    flat,
    inline,
    job,
    link,
    log,
    mirror,
    mirror_log,
    misuse,
    plan,
    queue,
    restore_all,
    scrub,
    seed,
    submit,
    tap,
    verify,
);

/// Goal: no program is forgotten. Method: the files and the list above.
#[test]
fn every_program_is_run() {
    let names: Vec<String> =
        sources().iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, PROGRAMS);
}

/// Goal: the program of the README is one. Method: it is taken out, compiled without a warning as C99, and run.
#[test]
fn the_program_of_the_readme_works() {
    if !has("cc") {
        return;
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let program = readme.split("```c\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("first-c.cdp");
    assert!(program.contains("/var/tmp/first-c.cdp"));
    let source = directory.path().join("first.c");
    fs::write(&source, program.replace("/var/tmp/first-c.cdp", store.to_str().unwrap())).unwrap();
    compile("cc", "c99", &source, &directory.path().join("first"));
    run(&directory.path().join("first"));
    assert!(store.exists());
}

/// Goal: the header for C++ compiles alone, and programs of it work. Method: the example, one for mirror sets and one for every other kind of handle, with the
/// system's compiler; no opaque type of the header is left without one of C++.
#[test]
fn the_wrapper_for_cpp_works() {
    if !has("c++") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let alone = directory.path().join("alone.cc");
    fs::write(&alone, "#include <cdp.hpp>\nint main() { return cdp::store().get() == nullptr ? 0 : 1; }\n")
        .unwrap();
    let to = directory.path().join("program");
    let own = ["mirror.cc", "wrapper.cc"].map(|name| crate_dir().join("tests/c").join(name));
    for source in [alone, root().join("examples/c/protect.cpp")].into_iter().chain(own) {
        compile("c++", "c++17", &source, &to);
        let output = Command::new(&to)
            .arg(directory.path().join("store"))
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", source.display());
    }
    let wrapper = fs::read_to_string(root().join("include/cdp.hpp")).unwrap();
    let header = header();
    let opaque = header.lines().filter_map(|line| line.strip_prefix("typedef struct ")?.strip_suffix(';'));
    let names: Vec<&str> = opaque.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        // A completion is used up by the one call that takes it.
        let is_wrapped = wrapper.contains(&format!("handle<{name}, ")) || name == "cdp_completion";
        assert!(is_wrapped, "cdp.hpp has no type for {name}");
    }
}

fn header() -> String {
    fs::read_to_string(root().join("include/cdp.h")).unwrap()
}

/// Goal: the library exports what the header declares and nothing else, and what it has once exported it keeps. Method: `nm`, the header and
/// the committed list.
#[test]
fn the_library_exports_the_header_and_nothing_else() {
    if !has("nm") {
        return;
    }
    let library = library();
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().unwrap();
    assert!(output.status.success(), "{}", library.display());
    let text = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    let declared: BTreeSet<String> = functions(&header()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(exported, declared);
    let list: String = declared.iter().map(|name| format!("{name}\n")).collect();
    blessed(&crate_dir().join("abi/symbols.txt"), &list);
}

/// Goal: every exported function is called by a C program at least once. Method: the committed list and the text of the programs.
#[test]
fn every_exported_function_is_called() {
    let text: String = sources().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let helpers = fs::read_to_string(crate_dir().join("tests/c/check.h")).unwrap();
    let symbols = fs::read_to_string(crate_dir().join("abi/symbols.txt")).unwrap();
    let silent: Vec<&str> = symbols
        .lines()
        .filter(|name| !(text.contains(&format!("{name}(")) || helpers.contains(&format!("{name}("))))
        .collect();
    assert!(symbols.lines().count() > 80);
    assert!(silent.is_empty(), "no C program calls {silent:?}");
}

/// The structs of the header and their members.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    // The members of a struct begin at two spaces; a pointer to a function has its name in brackets.
    for line in header.lines() {
        if let Some(name) = line.strip_prefix("typedef struct ").and_then(|rest| rest.strip_suffix(" {")) {
            found.push((name.to_owned(), Vec::new()));
            inside = true;
        } else if line.starts_with('}') {
            inside = false;
        } else if inside && line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  //") {
            let name = match line.split_once("(*") {
                Some((_, rest)) => rest.split(')').next().unwrap(),
                None => {
                    line.trim_end_matches(';').split('[').next().unwrap().rsplit([' ', '*']).next().unwrap()
                }
            };
            found.last_mut().unwrap().1.push(name.to_owned());
        }
    }
    found
}

/// Goal: no struct changes but by growing at its end. Method: a C program prints where each member lies; compared with the committed list, which
/// is that of 64-bit Linux.
#[test]
fn structs_lie_as_the_committed_layout_says() {
    if !has("cc") {
        return;
    }
    let structs = structs(&header());
    assert!(structs.len() > 30, "{}", structs.len());
    let mut program = String::from("#include \"cdp.h\"\n#include <stdio.h>\nint main(void) {\n");
    for (name, members) in &structs {
        writeln!(program, "  printf(\"{name} %zu\\n\", sizeof({name}));").unwrap();
        for member in members {
            let size = format!("sizeof((({name} *)0)->{member})");
            writeln!(program, "  printf(\"  {member} %zu %zu\\n\", offsetof({name}, {member}), {size});")
                .unwrap();
        }
    }
    program.push_str("  return 0;\n}\n");
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("layout.c");
    fs::write(&source, program).unwrap();
    let to = directory.path().join("layout");
    compile("cc", "c11", &source, &to);
    blessed(&crate_dir().join("abi/layout.txt"), &run(&to));
}
