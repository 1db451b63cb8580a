//! Gives the shared library its soname: the number is that of the binary interface, `CDP_ABI_VERSION`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcdp.so.1");
    }
}
