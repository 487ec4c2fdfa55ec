//! Encoding and decoding of what is stored; opens no file. The bytes: `proto/replica-format.md`.
pub(super) mod manifest;
pub(super) mod record;
