//! The committed header: is it what the source says, and do C and C++ compilers take it?

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Goal: `include/cdp.h` has not drifted from the source. Method: generate it again and compare; with a mismatch the new text is left
/// in the target directory, to be looked at and copied.
#[test]
fn the_committed_header_is_what_the_source_says() {
    let generated = tempfile::NamedTempFile::new().unwrap();
    let crate_dir = env!("CARGO_MANIFEST_DIR");
    let config = cbindgen::Config::from_file(Path::new(crate_dir).join("cbindgen.toml")).unwrap();
    cbindgen::Builder::new()
        .with_src(Path::new(crate_dir).join("src/lib.rs"))
        .with_config(config)
        .generate()
        .unwrap()
        .write_to_file(generated.path());
    let new = std::fs::read_to_string(generated.path()).unwrap();
    let committed = std::fs::read_to_string(root().join("include/cdp.h")).unwrap_or_default();
    if new != committed {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cdp.h");
        std::fs::write(&kept, &new).unwrap();
        panic!("include/cdp.h has drifted; the new text is {}", kept.display());
    }
}

/// Goal: the header compiles alone in every language that it promises. Method: the system's compilers, with warnings as errors.
#[test]
fn the_header_compiles_alone_as_c_and_cpp() {
    for (compiler, language, standard) in
        [("cc", "c", "c99"), ("cc", "c", "c11"), ("c++", "c++", "c++11"), ("c++", "c++", "c++17")]
    {
        if Command::new(compiler).arg("--version").output().is_err() {
            assert!(std::env::var("CI").is_err(), "{compiler} is missing");
            eprintln!("skipped: the header as {language}: no {compiler} on this machine");
            continue;
        }
        let out = tempfile::NamedTempFile::new().unwrap();
        let source =
            tempfile::Builder::new().suffix(if language == "c" { ".c" } else { ".cc" }).tempfile().unwrap();
        std::fs::write(
            source.path(),
            "#include \"cdp.h\"\nint main(void) { return (int)cdp_status_errno(CDP_OK); }\n",
        )
        .unwrap();
        let status = Command::new(compiler)
            .args([
                "-x",
                language,
                &format!("-std={standard}"),
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
                "-c",
            ])
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
    for line in header
        .lines()
        .filter(|line| line.starts_with("#define CDP_ERR_") || line.starts_with("#define CDP_OK"))
    {
        let mut words = line.split_whitespace().skip(1);
        let (name, code) = (words.next().unwrap(), words.next().unwrap().parse::<i32>().unwrap());
        let text = unsafe_text(cdp::cdp_status_name(code));
        assert_eq!(text, name);
        assert_eq!(cdp::cdp_status_errno(code) > 0, code < 0, "{name}");
        seen += 1;
    }
    assert!(seen > 10);
    assert_eq!(unsafe_text(cdp::cdp_status_name(12345)), "CDP_ERR_UNKNOWN");
}

#[allow(unsafe_code)]
fn unsafe_text(text: *const std::ffi::c_char) -> String {
    // SAFETY: the library returns NUL-terminated strings that live as long as the program.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}
