//! The committed header: is it what the source says, and do C and C++ compilers take it?
//!
//! `CDP_BLESS=1` writes what has drifted instead of failing: the header, and the lists in `abi/`.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fmt::Write, process::Command};
use support::{blessed, crate_dir, functions, root};

/// The parts of the header, in their order: module and title.
const SECTIONS: &[(&str, &str)] = &[
    ("version", "version"),
    ("types", "types"),
    ("status", "status"),
    ("storage", "storage"),
    ("copy", "copies and devices"),
    ("flat", "storage on one flat device"),
    ("log", "log"),
    ("store", "store"),
    ("volume", "volume"),
    ("queue", "queue: submit and poll"),
    ("point", "points"),
    ("timeline", "timeline"),
    ("bookmark", "bookmarks"),
    ("bookmark_more", "bookmarks across stores, and by schedule"),
    ("snapshot", "snapshots"),
    ("restore", "restore"),
    ("retention", "retention"),
    ("retention_plan", "retention: what stays and goes, and why"),
    ("size", "retention: how large a history will be"),
    ("source", "source: the production disk"),
    ("digests", "source: the far end of a link"),
    ("tap", "tap: capture beside a production disk"),
    ("in_flight", "tap: writes that overlap in flight"),
    ("dirty_map", "dirty maps by themselves"),
    ("map_file", "dirty maps that survive a crash"),
    ("resync", "resync, check"),
    ("resync_schedule", "resync: schedule"),
    ("job", "jobs: long work in steps"),
    ("job_start", "jobs: what there is"),
    ("verify", "verify"),
    ("seed", "seeding: export and import of sets"),
    ("import", "import"),
    ("restore_all", "restore: at once"),
    ("mirror", "mirror sets"),
    ("mirror_source", "mirror sets: as a source"),
    ("mirror_status", "mirror sets: status"),
    ("mirror_job", "mirror sets: repair and verification"),
    ("scrub", "scrub"),
    ("event", "events"),
    ("statistics", "figures"),
];

fn section(module: &str) -> String {
    let config = cbindgen::Config::from_file(crate_dir().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_src(crate_dir().join("src").join(format!("{module}.rs")))
        .with_config(config)
        .generate()
        .unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

/// The header as the source says it.
fn generated() -> String {
    let mut text = std::fs::read_to_string(crate_dir().join("header/preamble.h")).unwrap();
    for (module, title) in SECTIONS {
        let dashes = "-".repeat(108 - title.len());
        write!(text, "\n/* ---- {title} {dashes} */\n\n{}\n", section(module).trim()).unwrap();
    }
    text.push_str("\n#ifdef __cplusplus\n} // extern \"C\"\n#endif\n\n#endif /* CDP_H */\n");
    text
}

/// Goal: `include/cdp.h` has not drifted from the source. Method: generate it again and compare.
#[test]
fn the_committed_header_is_what_the_source_says() {
    blessed(&root().join("include/cdp.h"), &generated());
}

/// Goal: every module that exports something has its section. Method: the modules with an exported function or a C struct.
#[test]
fn every_module_that_exports_has_a_section() {
    for entry in std::fs::read_dir(crate_dir().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let module = path.file_stem().unwrap().to_str().unwrap();
        if text.contains("#[unsafe(no_mangle)]") || text.contains("\n#[repr(C)]") {
            assert!(SECTIONS.iter().any(|(name, _)| *name == module), "{module} is not in the header");
        }
    }
}

/// Goal: the header compiles alone in every language that it promises. Method: the system's compilers, with warnings as errors.
#[test]
fn the_header_compiles_alone_as_c_and_cpp() {
    for (compiler, language, standard) in
        [("cc", "c", "c99"), ("cc", "c", "c11"), ("c++", "c++", "c++11"), ("c++", "c++", "c++17")]
    {
        if !support::has(compiler) {
            continue;
        }
        let out = tempfile::NamedTempFile::new().unwrap();
        let suffix = if language == "c" { ".c" } else { ".cc" };
        let source = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
        let text = "#include \"cdp.h\"\nint main(void) { cdp_open_options options; CDP_INIT(options);\n\
                    return (int)options.flags + (int)cdp_status_errno(CDP_OK); }\n";
        std::fs::write(source.path(), text).unwrap();
        let status = Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}"), "-c"])
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic"])
            .arg("-I")
            .arg(root().join("include"))
            .arg(source.path())
            .arg("-o")
            .arg(out.path())
            .status()
            .unwrap();
        assert!(status.success(), "{compiler} -std={standard}");
    }
}

/// Goal: every status code of the header has a name of its own and an errno. Method: the codes as the header lists them.
#[test]
fn every_status_code_has_its_name_and_errno() {
    let header = std::fs::read_to_string(root().join("include/cdp.h")).unwrap();
    let mut seen = 0;
    let is_code = |line: &&str| {
        line.starts_with("#define CDP_ERR_")
            || line.starts_with("#define CDP_OK")
            || line.starts_with("#define CDP_END")
    };
    for line in header.lines().filter(is_code) {
        let mut words = line.split_whitespace().skip(1);
        let (name, code) = (words.next().unwrap(), words.next().unwrap().parse::<i32>().unwrap());
        let text = text_of(cdp::cdp_status_name(code));
        assert_eq!(text, name);
        assert_eq!(cdp::cdp_status_errno(code) > 0, code < 0, "{name}");
        seen += 1;
    }
    assert!(seen > 20);
    assert_eq!(text_of(cdp::cdp_status_name(12345)), "CDP_ERR_UNKNOWN");
}

/// Goal: each function of the header says which threads may call it and what it waits for, or refers to one that does.
#[test]
fn every_function_says_what_it_waits_for() {
    let header = std::fs::read_to_string(root().join("include/cdp.h")).unwrap();
    let mut silent = Vec::new();
    for (name, comment) in functions(&header) {
        let plain = ["cdp_version", "cdp_abi", "cdp_status", "cdp_last_error"];
        let says = comment.contains("any thread")
            || comment.contains("one thread")
            || comment.starts_with("As cdp_");
        if !says && !plain.iter().any(|prefix| name.starts_with(prefix)) {
            silent.push(name);
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
}

#[allow(unsafe_code)]
fn text_of(text: *const std::ffi::c_char) -> String {
    // SAFETY: the library returns NUL-terminated strings that live as long as the program.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}
