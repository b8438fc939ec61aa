//! Leaves the unit tests of the modelled files out: they need real rings.

fn main() {
    println!("cargo::rustc-cfg=modelled");
    println!("cargo::rerun-if-changed=build.rs");
}
