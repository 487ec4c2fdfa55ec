//! A disk as a plain file.
use super::BlockDevice;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const CHUNK_BYTES: u64 = 1 << 20;

/// Writes the disk as a raw image, zeros as holes. `progress`: bytes done, bytes in all. The file must not exist.
pub fn to_raw(device: &dyn BlockDevice, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let size = device.size_bytes();
    file.set_len(size)?;
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    let mut at = 0;
    while at < size {
        let len = CHUNK_BYTES.min(size - at);
        let mut from = at;
        for (run, zero) in device.status(at, len)? {
            if !zero {
                let part = &mut buffer[..run as usize];
                device.read_at(from, part)?;
                file.write_all_at(part, from)?;
            }
            from += run;
        }
        at += len;
        progress(at, size);
    }
    file.sync_all()
}
