//! Lets the whole program see this crate's `getrandom` and `clock_gettime`: see `src/entropy.rs` and
//! `src/standstill.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=clock_gettime");
}
