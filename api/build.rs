//! Makes code from `proto/`. Nothing outside the workspace is asked: the compiler of the definitions is a crate.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(["weir/profiles/v1/profiles.proto"], ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // For reflection.
    fs::write(out.join("definitions.bin"), definitions.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(definitions)?;
    Ok(())
}
