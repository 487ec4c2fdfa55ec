//! One application over several machines of the lab: a number goes from each to the next once it is durable there.
//!
//! Each machine keeps the newest in one block of a file, written in place: `number u64 LE, BLAKE3 of it, zero`. The first gets
//! number n + 1 only when the last has n. So at every instant that all of them share, no machine holds a number that the one
//! before it has not, and the last is at most one behind the first. Points of different instants break that.
use super::error::LabError;
use super::workload::Stop;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FILE: &str = "messages";
/// One block of the file system: written by one request.
const BLOCK: usize = 4096;
/// A load beside that of the ledgers, not a flood.
const PAUSE: Duration = Duration::from_millis(5);

fn encode(number: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let number = number.to_le_bytes();
    block[..8].copy_from_slice(&number);
    block[8..40].copy_from_slice(blake3::hash(&number).as_bytes());
    block
}

/// The number that a machine holds; None: it takes no part, or its block is not whole.
pub fn newest(folder: &Path) -> Option<u64> {
    let mut block = [0; BLOCK];
    let file = File::open(folder.join(FILE)).ok()?;
    file.read_exact_at(&mut block, 0).ok()?;
    let number: [u8; 8] = block[..8].try_into().ok()?;
    let number = u64::from_le_bytes(number);
    (encode(number) == block).then_some(number)
}

/// Whether the numbers that machines hold, in the order in which they are sent on, are of one instant.
pub fn in_order(numbers: &[u64]) -> bool {
    let falls = numbers.windows(2).all(|pair| pair[1] <= pair[0]);
    let (first, last) = (numbers.first().copied(), numbers.last().copied());
    falls && first.unwrap_or(0) - last.unwrap_or(0).min(first.unwrap_or(0)) <= 1
}

/// Sends until it is stopped or dropped.
pub(super) struct Messages {
    stop: Stop,
    thread: Option<JoinHandle<Result<u64, LabError>>>,
}

impl Messages {
    /// `folders`: of the machines' data, the first sender first.
    pub(super) fn start(folders: &[PathBuf]) -> Result<Self, LabError> {
        let mut files = Vec::new();
        for folder in folders {
            let path = folder.join(FILE);
            let open = || -> io::Result<File> {
                let file = File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&path)?;
                file.write_all_at(&encode(0), 0)?;
                file.sync_all()?;
                // The name too, before anybody looks for it in a copy.
                File::open(folder)?.sync_all()?;
                Ok(file)
            };
            files.push((open().map_err(LabError::io("make", &path))?, path));
        }
        let stop = Stop::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stopped.came_before(Instant::now() + PAUSE) {
                number += 1;
                for (file, path) in &files {
                    file.write_all_at(&encode(number), 0)
                        .and_then(|()| file.sync_data())
                        .map_err(LabError::io("write", path))?;
                }
            }
            Ok(number)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// The last number that all of them hold.
    pub(super) fn stop(mut self) -> Result<u64, LabError> {
        self.stop.now();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(sent)) => sent,
            _ => Err(LabError::Program {
                program: "the sender of messages".to_owned(),
                detail: "it ended in a panic".to_owned(),
            }),
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_whole_or_none_and_order_is_seen() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let paths: Vec<PathBuf> = folders.iter().map(|folder| folder.path().to_owned()).collect();
        assert_eq!(newest(&paths[0]), None);
        let messages = Messages::start(&paths).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while newest(&paths[2]).is_none_or(|number| number < 3) {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
        let last = messages.stop().unwrap();
        assert!(paths.iter().all(|path| newest(path) == Some(last)), "{last}");
        let file = File::options().write(true).open(paths[1].join(FILE)).unwrap();
        file.write_all_at(&[7], 1).unwrap();
        assert_eq!(newest(&paths[1]), None, "a changed number has another hash");
        for (numbers, fine) in [
            (&[5, 5, 5][..], true),
            (&[6, 5, 5], true),
            (&[6, 6, 5], true),
            (&[5, 6, 5], false),
            (&[5, 5, 6], false),
            (&[7, 6, 5], false),
            (&[], true),
        ] {
            assert_eq!(in_order(numbers), fine, "{numbers:?}");
        }
    }
}
