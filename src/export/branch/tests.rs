use super::*;
use proptest::prelude::*;

/// A base whose every byte tells its place.
pub struct Pattern(pub u64);

pub fn pattern(at: u64) -> u8 {
    (at / 7 % 251) as u8
}

impl BlockDevice for Pattern {
    fn size_bytes(&self) -> u64 {
        self.0
    }
    fn read_only(&self) -> bool {
        true
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer
            .iter_mut()
            .enumerate()
            .for_each(|(index, byte)| *byte = pattern(offset + index as u64));
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn write_zeroes(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn status(&self, _: u64, len: u64) -> io::Result<Vec<(u64, bool)>> {
        Ok(vec![(len, false)])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn reads_what_was_written_also_after_reopening(
        short in 0u64..3,
        steps in prop::collection::vec((0u64..70_000, 1u64..20_000, any::<Option<u8>>(), any::<bool>()), 1..20),
    ) {
        let size = 20 * BLOCK - short * 512;
        let folder = tempfile::tempdir().unwrap();
        let mut branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
        let mut model: Vec<u8> = (0..size).map(pattern).collect();
        for (offset, len, byte, flush) in steps {
            let len = len.min(size - offset);
            match byte {
                Some(0) => branch.write_zeroes(offset, len).unwrap(),
                Some(byte) => branch.write_at(offset, &vec![byte; len as usize]).unwrap(),
                None => {
                    if flush {
                        branch.flush().unwrap();
                    }
                    drop(branch);
                    branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
                }
            }
            if let Some(byte) = byte {
                model[offset as usize..(offset + len) as usize].fill(byte);
            }
            let mut read = vec![0; size as usize];
            branch.read_at(0, &mut read).unwrap();
            prop_assert!(read == model);
            let mut at = 0;
            for (len, zero) in branch.status(0, size).unwrap() {
                prop_assert!(!zero || model[at as usize..(at + len) as usize].iter().all(|byte| *byte == 0));
                at += len;
            }
            prop_assert!(at == size);
        }
        prop_assert!(branch.write_at(size, &[1]).is_err());
    }
}

#[test]
fn a_crash_at_each_step_of_a_flush_keeps_what_was_flushed_before() {
    let size = 80_000 * BLOCK;
    for cut in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
        branch.write_at(100, &[1; 10]).unwrap();
        branch.flush().unwrap();
        branch.write_at(200, &[2; 10]).unwrap();
        branch.write_at(79_000 * BLOCK, &[3; BLOCK_BYTES]).unwrap();
        let mut count = 0;
        branch
            .flush_with(|_| {
                if count == cut {
                    // What a killed process leaves: the files as they are now.
                    for name in ["data", "present"] {
                        let args = [
                            "--sparse=always".into(),
                            folder.path().join(name),
                            copy.path().join(name),
                        ];
                        assert!(
                            std::process::Command::new("cp")
                                .args(args)
                                .status()
                                .unwrap()
                                .success()
                        );
                    }
                }
                count += 1;
            })
            .unwrap();
        if count <= cut {
            break;
        }
        let crashed = Branch::open(copy.path(), Arc::new(Pattern(size))).unwrap();
        let mut read = [0; 300];
        crashed.read_at(0, &mut read).unwrap();
        assert_eq!(read[100..110], [1; 10]);
        assert_eq!(read[0], pattern(0));
        assert!(read[200..210] == [2; 10] || (200..210).all(|at| read[at] == pattern(at as u64)));
        crashed.read_at(79_000 * BLOCK, &mut read[..1]).unwrap();
        assert!(read[0] == 3 || read[0] == pattern(79_000 * BLOCK));
    }
}

#[test]
fn a_folder_of_another_disk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Branch::open(folder.path(), Arc::new(Pattern(BLOCK))).unwrap();
    assert!(Branch::open(folder.path(), Arc::new(Pattern(1 << 30))).is_err());
    Branch::discard(folder.path()).unwrap();
    Branch::discard(folder.path()).unwrap();
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _open = Branch::open(folder.path(), Arc::new(Pattern(BLOCK))).unwrap();
    let second = Branch::open(folder.path(), Arc::new(Pattern(BLOCK)));
    assert_eq!(second.err().unwrap().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn zeros_take_no_room_and_are_known() {
    let size = 4 << 30;
    let folder = tempfile::tempdir().unwrap();
    let branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
    branch.write_at(1 << 20, &vec![7; 8 << 20]).unwrap();
    branch.flush().unwrap();
    // From the middle of a block to the middle of another.
    let (from, to) = ((2 << 20) + 100, (3 << 30) + 5);
    branch.write_zeroes(from, to - from).unwrap();
    branch.flush().unwrap();
    let used = std::os::unix::fs::MetadataExt::blocks(&branch.data.metadata().unwrap()) * 512;
    assert!(used < 2 << 20, "{used} bytes are in use");
    let edge = BLOCK - 100;
    let last = to / BLOCK * BLOCK;
    assert_eq!(
        branch.status(1 << 20, to - (1 << 20)).unwrap(),
        vec![
            ((1 << 20) + BLOCK, false),
            (last - from - edge, true),
            (to - last, false)
        ]
    );
    for (at, byte) in [
        (from - 1, 7),
        (from, 0),
        (1 << 30, 0),
        (to - 1, 0),
        (to, pattern(to)),
    ] {
        let mut read = [99];
        branch.read_at(at, &mut read).unwrap();
        assert_eq!(read[0], byte, "at {at}");
    }
}

/// What another boot of the host finds: the files, but not the promise of `live`.
fn power_cut(folder: &Path) {
    let live = File::options()
        .read(true)
        .write(true)
        .open(folder.join("live"))
        .unwrap();
    let mut header = [0; 44];
    live.read_exact_at(&mut header, 0).unwrap();
    header[16] ^= 1;
    let sum = crc32fast::hash(&header[..40]);
    header[40..].copy_from_slice(&sum.to_le_bytes());
    live.write_all_at(&header, 0).unwrap();
}

#[test]
fn after_a_power_cut_only_what_was_flushed_counts() {
    let size = 100 * BLOCK;
    let folder = tempfile::tempdir().unwrap();
    let open = || Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
    let branch = open();
    branch.write_at(0, &[1; BLOCK_BYTES]).unwrap();
    branch.flush().unwrap();
    branch.write_at(5 * BLOCK, &[2; BLOCK_BYTES]).unwrap();
    drop(branch);
    let read = |branch: &Branch, block: u64| {
        let mut read = [0];
        branch.read_at(block * BLOCK, &mut read).unwrap();
        read[0]
    };
    // A process that ended, on a host that goes on: both. And its flush makes the bits of the one before durable.
    let branch = open();
    assert_eq!((read(&branch, 0), read(&branch, 5)), (1, 2));
    branch.write_at(6 * BLOCK, &[3; BLOCK_BYTES]).unwrap();
    branch.flush().unwrap();
    branch.write_at(7 * BLOCK, &[4; BLOCK_BYTES]).unwrap();
    drop(branch);
    power_cut(folder.path());
    let branch = open();
    assert_eq!(
        [0, 5, 6, 7].map(|block| read(&branch, block)),
        [1, 2, 3, pattern(7 * BLOCK)]
    );
    // The rest of a block comes from the base, not from what the power cut left of it in `data`.
    branch.write_at(7 * BLOCK + 9, &[5]).unwrap();
    assert_eq!(read(&branch, 7), pattern(7 * BLOCK));
    drop(branch);
    // A damaged header is no promise either.
    File::options()
        .write(true)
        .open(folder.path().join("live"))
        .unwrap()
        .write_all_at(&[0; 8], 0)
        .unwrap();
    assert_eq!(read(&open(), 6), 3);
}

/// Bytes 1-7 of a block belong to the whole write or to what came after, never to the base again.
#[test]
fn filling_a_block_does_not_undo_a_write_beside_it() {
    for round in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let branch = Branch::open(folder.path(), Arc::new(Pattern(4 * BLOCK))).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| branch.write_at(BLOCK, &[250]).unwrap());
            scope.spawn(|| branch.write_at(BLOCK, &[251; BLOCK_BYTES]).unwrap());
        });
        let mut read = [0; BLOCK_BYTES];
        branch.read_at(BLOCK, &mut read).unwrap();
        assert!(read[1..].iter().all(|byte| *byte == 251), "round {round}");
    }
}

const KILLED_BYTES: u64 = (2 << 20) - 512;
const KILLED_FOLDER: &str = "LIFEBOAT_TEST_BRANCH";
const KILLED_SEED: &str = "LIFEBOAT_TEST_SEED";

/// What the child does, in an order that the seed tells: (offset, bytes, what).
fn deeds(seed: u64) -> impl Iterator<Item = (u64, u64, u8)> {
    let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    std::iter::from_fn(move || {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let number = |at: usize| {
            u64::from(u32::from_le_bytes([
                bytes[at],
                bytes[at + 1],
                bytes[at + 2],
                bytes[at + 3],
            ]))
        };
        // Mostly odd places and lengths, at times whole blocks.
        let (mut offset, mut len) = (number(0) % KILLED_BYTES, 1 + number(4) % 30_000);
        if bytes[8] < 80 {
            (offset, len) = (offset / BLOCK * BLOCK, len.next_multiple_of(BLOCK));
        }
        Some((offset, len.min(KILLED_BYTES - offset), bytes[12]))
    })
}

fn is_flush(what: u8) -> bool {
    what < 3
}

/// The byte a deed writes; none is the base's.
fn byte_of(what: u8) -> u8 {
    if what < 60 { 0 } else { 251 + what % 5 }
}

#[test]
#[ignore = "the process that the next test kills"]
fn child_that_is_killed() {
    use std::io::Write;
    let Some(folder) = std::env::var_os(KILLED_FOLDER) else {
        return; // not a test of its own
    };
    let seed = std::env::var(KILLED_SEED).unwrap().parse().unwrap();
    let branch = Branch::open(Path::new(&folder), Arc::new(Pattern(KILLED_BYTES))).unwrap();
    let mut out = File::options().append(true).open("/dev/stderr").unwrap();
    for (offset, len, what) in deeds(seed) {
        match (is_flush(what), byte_of(what)) {
            (true, _) => branch.flush().unwrap(),
            (_, 0) => branch.write_zeroes(offset, len).unwrap(),
            (_, byte) => branch.write_at(offset, &vec![byte; len as usize]).unwrap(),
        }
        // The acknowledgement.
        out.write_all(b".").unwrap();
    }
}

#[test]
fn a_process_killed_at_any_instant_loses_nothing_it_acknowledged() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let mut model: Vec<u8> = (0..KILLED_BYTES).map(pattern).collect();
    let mut unfinished = 0;
    for seed in 0..100 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "export::branch::tests::child_that_is_killed"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(KILLED_FOLDER, folder.path())
            .env(KILLED_SEED, seed.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = child.stderr.take().unwrap();
        // After a number of answers that differs each time, and a moment more.
        let mut first = vec![0; (1 + seed * 37 % 300) as usize];
        answers.read_exact(&mut first).unwrap();
        for _ in 0..seed * 7919 % 20_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = Vec::new();
        answers.read_to_end(&mut rest).unwrap();
        assert!(first.iter().chain(&rest).all(|byte| *byte == b'.'));
        let acknowledged = first.len() + rest.len();
        let mut all = deeds(seed);
        for (offset, len, what) in all.by_ref().take(acknowledged) {
            if !is_flush(what) {
                model[offset as usize..(offset + len) as usize].fill(byte_of(what));
            }
        }
        let branch = Branch::open(folder.path(), Arc::new(Pattern(KILLED_BYTES))).unwrap();
        let mut read = vec![0; KILLED_BYTES as usize];
        branch.read_at(0, &mut read).unwrap();
        // The deed under way is there, not there, or in part.
        let (offset, len, what) = all.next().unwrap();
        let under_way = offset as usize..(offset + len) as usize;
        for at in 0..read.len() {
            if read[at] != model[at] {
                let fine = !is_flush(what) && under_way.contains(&at) && read[at] == byte_of(what);
                assert!(
                    fine,
                    "seed {seed}: byte {at} of {under_way:?} is {}, not {}",
                    read[at], model[at]
                );
            }
        }
        unfinished += u32::from(read != model);
        model = read;
    }
    println!("{unfinished} of 100 kills met a write under way");
}
