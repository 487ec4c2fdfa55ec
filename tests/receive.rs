//! The way home: a real store and a real server of it, receivers that are the real program, an authority that says what the
//! test wants.
mod support;
use lifeboat::block::{BLOCK_BYTES, GRANULE_BYTES};
use lifeboat::process_server::ReceivePhase;
use std::os::unix::fs::FileExt;
use support::homeward::Home;

const MIB: u64 = 1 << 20;

#[test]
fn only_what_differs_travels_then_deltas_then_the_proof() {
    // The second disk ends within a granule, and within a block.
    let mut home = Home::new(&[24 * MIB, 3 * MIB + 5 * 512]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    // What was on the original disks when they were left: nine granules are not as at the target.
    let mut left = home.now.clone();
    for granule in [0, 1, 2, 50, 100, 200, 383] {
        left[0][granule * GRANULE_BYTES + 77] ^= 1;
    }
    let last = left[1].len() - 1;
    left[1][last] ^= 1;
    left[1][GRANULE_BYTES] ^= 1;
    let one = home.image("one", &left[0]);
    // Larger than the original: what lies behind is somebody else's.
    let behind = vec![0xEE; 70_000];
    let two = home.image("two", &[left[1].as_slice(), &behind].concat());
    let targets = [one.as_path(), two.as_path()];
    let receiving = home.receive(&targets, &[]);
    let report = home.wait_holds(first);
    let copied = |report: &lifeboat::process_server::ReceiveReport| -> u64 {
        report.disks.iter().map(|disk| disk.copied_bytes).sum()
    };
    // Eight whole granules and the last one of the second disk, in whole blocks.
    let tail = (left[1].len() % GRANULE_BYTES).next_multiple_of(BLOCK_BYTES);
    assert_eq!(copied(&report), (8 * GRANULE_BYTES + tail) as u64);
    home.check(first, &targets);
    assert_eq!(home.pins(), [first]);

    // A delta is the blocks that changed, no more.
    let second = home.change(40, 1);
    let changed = home
        .disks
        .iter()
        .map(|disk| {
            let store = home.store();
            let set = store.changed_since(home.machine, *disk, first, lifeboat::replica::At::Point(second));
            set.unwrap().blocks() * BLOCK_BYTES as u64
        })
        .sum::<u64>();
    home.want(second, false);
    let after = home.wait_holds(second);
    assert_eq!(copied(&after) - copied(&report), changed);
    home.check(second, &targets);
    assert_eq!(home.pins(), [second]);

    // The machine stops at the target: the last delta, every disk read back, and the server hears it.
    let last = home.change(10, 2);
    home.want(last, true);
    let ended = receiving.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    home.check(last, &targets);
    let done = ended.line("done");
    assert_eq!(
        (&done["mayStart"], &done["mendedGranules"]),
        (&true.into(), &0.into())
    );
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!((told.phase, told.verified), (ReceivePhase::Done, Some(last)));
    let bytes = std::fs::read(&two).unwrap();
    assert_eq!(
        bytes[home.now[1].len()..],
        behind,
        "bytes behind the disk were changed"
    );
    let state = std::fs::read_dir(home.state()).unwrap().flatten();
    let state: Vec<_> = state
        .filter(|file| file.file_name().to_string_lossy().ends_with(".json"))
        .collect();
    assert_eq!(state.len(), 2, "identity and state");
}

#[test]
fn a_disk_that_was_changed_behind_the_receiver_is_mended_before_the_machine_may_start() {
    let mut home = Home::new(&[8 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let one = home.image("one", &vec![0; 8 << 20]);
    let receiving = home.receive(&[&one], &[]);
    home.wait_holds(first);
    let file = std::fs::File::options().write(true).open(&one).unwrap();
    file.write_all_at(b"something else wrote here", 5_000_000)
        .unwrap();
    file.sync_all().unwrap();
    home.want(first, true);
    let ended = receiving.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.line("done")["mendedGranules"], 1);
    assert_eq!(ended.line("mended")["granules"], 1);
    home.check(first, &[&one]);
}
