//! Makes the messages of `proto/` at build time, without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/lifeboat.proto");
    let descriptors = protox::compile(["proto/lifeboat.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".lifeboat.v1.FrameMessage.frame")
        .compile_fds(descriptors)?;
    Ok(())
}
