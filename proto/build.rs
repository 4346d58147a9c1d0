//! Turns `disco.proto` into types, with no protoc: protox parses, tonic-prost-build writes.
//!
//! Also writes down which methods stream, because a deadline is right for a question and wrong for a stream,
//! and at HTTP's level the two look the same.

use std::{env, error::Error, fmt::Write, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/disco.proto"], ["proto"])?;
    let mut streaming = String::from("&[");
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                if method.client_streaming() || method.server_streaming() {
                    write!(streaming, "\"/{}.{}/{}\", ", file.package(), service.name(), method.name())?;
                }
            }
        }
    }
    streaming.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    fs::write(out.join("streaming.rs"), streaming)?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
