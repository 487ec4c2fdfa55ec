//! Between agent and server: messages, handshake, limits. Bytes only, no policy.
pub mod facts;
/// Generated from `proto/lifeboat.proto`.
#[allow(clippy::all, missing_docs)]
pub mod proto {
    tonic::include_proto!("lifeboat.v1");
}
