//! Version of the library and of its binary interface.

use std::ffi::{CStr, c_char};

/// Major version of the library.
pub const CDP_VERSION_MAJOR: u32 = 0;
/// Minor version of the library.
pub const CDP_VERSION_MINOR: u32 = 1;
/// Patch version of the library.
pub const CDP_VERSION_PATCH: u32 = 0;
/// Version of the binary interface.
pub const CDP_ABI_VERSION: u32 = 1;

/// Version of the library as one number: major * 1000000 + minor * 1000 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_version_number() -> u32 {
    CDP_VERSION_MAJOR * 1_000_000 + CDP_VERSION_MINOR * 1000 + CDP_VERSION_PATCH
}

/// Version of the library as text, such as "0.1.0". The text lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_version_string() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no NUL inside"),
    };
    TEXT.as_ptr()
}

/// Version of the binary interface: a program that was compiled against another number must not go on.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_abi_version() -> u32 {
    CDP_ABI_VERSION
}
