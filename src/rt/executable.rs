//! This very executable: which version it is, its bytes, their digest.
//!
//! Read through `/proc/self/exe`, which stays the file that runs when its name was taken by another one since.
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

const MARK: &[u8; 17] = b"lifeboat-version:";
const RECORD_BYTES: usize = 64;

/// Mark, version, zeros. A file's version can be told without running it.
#[used]
static RECORD: [u8; RECORD_BYTES] = {
    let (mut record, version) = ([0; RECORD_BYTES], env!("CARGO_PKG_VERSION").as_bytes());
    assert!(
        MARK.len() + version.len() < RECORD_BYTES,
        "the version is too long"
    );
    let mut at = 0;
    while at < MARK.len() {
        record[at] = MARK[at];
        at += 1;
    }
    while at - MARK.len() < version.len() {
        record[at] = version[at - MARK.len()];
        at += 1;
    }
    record
};

/// Version of this program.
pub fn version() -> &'static str {
    // Read from the record, not known to the compiler: what the file says and what the program says are one.
    let text = &std::hint::black_box(&RECORD)[MARK.len()..];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).unwrap_or(env!("CARGO_PKG_VERSION"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest {
    pub sha256: [u8; 32],
    pub bytes: u64,
}

pub fn open() -> io::Result<File> {
    File::open("/proc/self/exe")
}

/// Of this executable; read once.
pub fn digest() -> io::Result<FileDigest> {
    static OWN: OnceLock<FileDigest> = OnceLock::new();
    if let Some(known) = OWN.get() {
        return Ok(*known);
    }
    let found = digest_of(open()?)?;
    Ok(*OWN.get_or_init(|| found))
}

pub fn digest_of(mut file: impl Read) -> io::Result<FileDigest> {
    let (mut context, mut bytes, mut buffer) = (Context::new(&SHA256), 0, vec![0; 1 << 17]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
        bytes += count as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok(FileDigest { sha256, bytes })
}

/// Of a file; None where it cannot be read.
pub fn digest_at(path: &Path) -> Option<FileDigest> {
    digest_of(File::open(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_its_version() {
        assert_eq!(version(), env!("CARGO_PKG_VERSION"));
        let mut bytes = Vec::new();
        open().unwrap().read_to_end(&mut bytes).unwrap();
        let own = digest().unwrap();
        assert_eq!(own.bytes, bytes.len() as u64);
        assert_eq!(
            ring::digest::digest(&SHA256, &bytes).as_ref(),
            own.sha256.as_slice()
        );
        let marked = [MARK.as_slice(), version().as_bytes(), b"\0"].concat();
        assert!(bytes.windows(marked.len()).any(|part| part == marked));
    }
}
