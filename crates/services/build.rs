//! The messages and the service of `proto/rows.proto`. They are generated at each build, so that
//! they cannot differ from it, and by a compiler in Rust, so that no `protoc` has to be installed.

use std::error::Error;

const SERIAL: &str = "#[derive(serde::Serialize, serde::Deserialize)]";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/rows.proto");
    let files = protox::compile(["proto/rows.proto"], ["proto"])?;
    // What is cached, and what keys are made of.
    let mut rows = tonic_prost_build::configure();
    for cached in ["Table", "Row", "Value", "Value.kind"] {
        rows = rows.type_attribute(format!("tamis.rows.v1.{cached}"), SERIAL);
    }
    rows.compile_fds(files)?;
    Ok(())
}
