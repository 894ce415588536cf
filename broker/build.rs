//! Turns `proto/peer.proto` into Rust, by protox: building AKLight needs no protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/peer.proto");
    let descriptors = protox::compile(["peer.proto"], ["proto"])?;
    // Every field of bytes becomes a `Bytes`: a slice of what came from the socket, not a copy.
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
