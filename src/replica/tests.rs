//! The store against a plain copy of every disk at every point: random work, crashes at every write, full
//! disks, compaction, retention, damage.
use super::*;
use crate::block::{BlockRange, FrameBuilder};
use bytes::Bytes;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;

const BLOCKS: u64 = 96;
const SIZE: u64 = BLOCKS * BLOCK_BYTES as u64;

struct Fixture {
    folder: tempfile::TempDir,
    key: VaultKey,
    machine: MachineId,
    disks: [DiskId; 2],
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = VaultKey::generate();
        let fixture = Self {
            folder,
            key,
            machine: MachineId::new(),
            disks: [DiskId::new(), DiskId::new()],
        };
        let store = Store::create(fixture.folder.path(), &fixture.key).unwrap();
        store.register_machine(fixture.machine, "web").unwrap();
        for (index, &id) in fixture.disks.iter().enumerate() {
            let spec = DiskSpec {
                id,
                name: format!("disk{index}"),
                size_bytes: SIZE,
            };
            store.register_disk(fixture.machine, spec.clone()).unwrap();
            store.register_disk(fixture.machine, spec).unwrap();
        }
        fixture
    }

    fn open(&self) -> Store {
        Store::open(self.folder.path(), &self.key).unwrap()
    }

    fn read(&self, store: &Store, disk: usize, at: At) -> Vec<u8> {
        let image = store.image(self.machine, self.disks[disk], at).unwrap();
        let mut bytes = vec![0xAA; SIZE as usize];
        image.read_at(0, &mut bytes).unwrap();
        bytes
    }
}

fn spec(instant: i64) -> PointSpec {
    PointSpec {
        instant_unix_nanos: instant,
        consistency: Consistency::CrashConsistent,
        note: String::new(),
        freeze_micros: 1,
    }
}

/// Blocks from `first` on, all of one byte.
fn frame(first: u64, count: u64, byte: u8) -> Bytes {
    let mut builder = FrameBuilder::new();
    if byte == 0 {
        builder.push_zero(BlockRange::new(first, count));
    } else {
        builder.push(first, &vec![byte; count as usize * BLOCK_BYTES]);
    }
    builder.finish(1).unwrap()
}

fn apply(disk: &mut [u8], first: u64, count: u64, byte: u8) {
    disk[first as usize * BLOCK_BYTES..(first + count) as usize * BLOCK_BYTES].fill(byte);
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        disk: usize,
        first: u64,
        count: u64,
        byte: u8,
    },
    Flush,
    Seal,
    Reopen,
    Begin,
    Compact,
    DropOldest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..2, 0..BLOCKS - 16, 1u64..16, 0u8..5)
            .prop_map(|(disk, first, count, byte)| Step::Write { disk, first, count, byte }),
        1 => Just(Step::Flush),
        4 => Just(Step::Seal),
        1 => Just(Step::Reopen),
        1 => Just(Step::Begin),
        1 => Just(Step::Compact),
        1 => Just(Step::DropOldest),
    ]
}

/// What the store must hold: the disks now, and the disks at each point.
type Disks = [Vec<u8>; 2];

fn check(fixture: &Fixture, store: &Store, points: &[(PointId, Disks)]) {
    let known: Vec<_> = store
        .points(fixture.machine)
        .unwrap()
        .iter()
        .map(|point| point.id)
        .collect();
    assert_eq!(known, points.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    for (id, disks) in points {
        for (index, expected) in disks.iter().enumerate() {
            assert!(
                fixture.read(store, index, At::Point(*id)) == *expected,
                "disk {index} of point {id} differs"
            );
        }
    }
    // What is said to be unchanged between two states is.
    let latest = [0, 1].map(|disk| fixture.read(store, disk, At::Latest));
    let mut states: Vec<_> = points.iter().map(|(id, disks)| (At::Point(*id), disks)).collect();
    states.push((At::Latest, &latest));
    for (since, held) in points {
        for (to, wanted) in &states {
            for disk in 0..2 {
                let changed = store.changed_since(fixture.machine, fixture.disks[disk], *since, *to);
                let changed = changed.unwrap();
                let differs = |block: &u64| {
                    let at = *block as usize * BLOCK_BYTES;
                    held[disk][at..at + BLOCK_BYTES] != wanted[disk][at..at + BLOCK_BYTES]
                };
                for block in (0..BLOCKS).filter(differs) {
                    assert!(
                        changed.contains(block),
                        "block {block} of disk {disk}: {since} to {to:?}"
                    );
                }
                if *to == At::Point(*since) {
                    assert!(changed.is_empty());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_point_reads_as_the_disks_were(steps in prop::collection::vec(step(), 1..60)) {
        let fixture = Fixture::new();
        let mut store = Some(fixture.open());
        let mut writer = store.as_ref().unwrap().begin(fixture.machine, 1).unwrap();
        for (index, &disk) in fixture.disks.iter().enumerate() {
            writer.append(disk, frame(0, BLOCKS / 2, index as u8 + 7)).unwrap();
        }
        let mut now: Disks = [vec![0; SIZE as usize], vec![0; SIZE as usize]];
        for (index, disk) in now.iter_mut().enumerate() {
            apply(disk, 0, BLOCKS / 2, index as u8 + 7);
        }
        let mut points: Vec<(PointId, Disks)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let open = store.as_ref().unwrap();
            match step {
                Step::Write { disk, first, count, byte } => {
                    writer.append(fixture.disks[disk], frame(first, count, byte)).unwrap();
                    apply(&mut now[disk], first, count, byte);
                }
                Step::Flush => writer.flush().unwrap(),
                Step::Seal => points.push((writer.seal(spec(number as i64)).unwrap(), now.clone())),
                Step::Reopen => {
                    writer.flush().unwrap();
                    drop(writer);
                    drop(store.take());
                    store = Some(fixture.open());
                    writer = store.as_ref().unwrap().begin(fixture.machine, 1).unwrap();
                }
                Step::Begin => {
                    let next = open.begin(fixture.machine, 1).unwrap();
                    let fenced = writer.flush();
                    let is_fenced = matches!(fenced, Err(ReplicaError::Fenced { .. }));
                    prop_assert!(is_fenced);
                    writer = next;
                }
                Step::Compact => { open.compact(fixture.machine).unwrap(); }
                Step::DropOldest => {
                    // Retention with every age beyond it: only the last good point stays.
                    let none = Retention { all_nanos: -1, step_nanos: 1, steps_until_nanos: -1, keep_nanos: -1 };
                    let gone = open.prune(fixture.machine, i64::MAX, &none).unwrap();
                    points.retain(|(id, _)| !gone.contains(id));
                }
            }
        }
        let open = store.as_ref().unwrap();
        for (index, disk) in now.iter().enumerate() {
            prop_assert!(fixture.read(open, index, At::Latest) == *disk);
        }
        check(&fixture, open, &points);
        let report = open.verify(&mut |_, _| ()).unwrap();
        prop_assert_eq!(report.damages, vec![]);
    }
}

/// Work that uses every kind of write; records what was promised. Ends at the first error.
fn work(
    fixture: &Fixture,
    store: &Store,
    promised: &mut Vec<(PointId, Disks)>,
    flushed: &mut Disks,
) -> Result<(), ReplicaError> {
    let mut now = flushed.clone();
    for round in 0..3u8 {
        let mut writer = store.begin(fixture.machine, u64::from(round) + 1)?;
        for part in 0..3u8 {
            for (disk, model) in now.iter_mut().enumerate() {
                let (first, byte) = (
                    u64::from(part) * 20 + u64::from(round),
                    1 + round * 16 + part * 2 + disk as u8,
                );
                writer.append(fixture.disks[disk], frame(first, 12, byte))?;
                apply(model, first, 12, byte);
            }
            writer.flush()?;
            *flushed = now.clone();
            let id = writer.seal(spec(i64::from(round) * 10 + i64::from(part)))?;
            promised.push((id, now.clone()));
        }
        let none = Retention {
            all_nanos: -1,
            step_nanos: 1,
            steps_until_nanos: -1,
            keep_nanos: -1,
        };
        if round == 1 {
            let before = promised.clone();
            // From the call on, the points may or may not be there: nothing is promised of them.
            promised.drain(..promised.len() - 1);
            if let Err(error) = store.prune(fixture.machine, i64::MAX, &none) {
                promised.clear();
                promised.extend(before.last().cloned());
                return Err(error);
            }
            store.compact(fixture.machine)?;
        }
    }
    Ok(())
}

fn promised_is_there(fixture: &Fixture, promised: &[(PointId, Disks)], flushed: &Disks, what: &str) {
    let store = fixture.open();
    let known: Vec<_> = store
        .points(fixture.machine)
        .unwrap()
        .iter()
        .map(|point| point.id)
        .collect();
    for (id, disks) in promised {
        assert!(known.contains(id), "{what}: an acknowledged point is gone");
        for (index, expected) in disks.iter().enumerate() {
            assert!(
                fixture.read(&store, index, At::Point(*id)) == *expected,
                "{what}: point {id} differs"
            );
        }
    }
    // What was flushed is part of the latest data, unless something newer covers it.
    for (index, expected) in flushed.iter().enumerate() {
        let latest = fixture.read(&store, index, At::Latest);
        for (block, (now, then)) in latest
            .chunks(BLOCK_BYTES)
            .zip(expected.chunks(BLOCK_BYTES))
            .enumerate()
        {
            assert!(
                now[0] >= then[0],
                "{what}: block {block} of disk {index} went back behind its acknowledgement"
            );
        }
    }
    assert_eq!(store.verify(&mut |_, _| ()).unwrap().damages, [], "{what}");
    // And the store can be written on.
    let mut writer = store.begin(fixture.machine, 99).unwrap();
    writer.append(fixture.disks[0], frame(0, 3, 200)).unwrap();
    let id = writer.seal(spec(1000)).unwrap();
    assert_eq!(fixture.read(&store, 0, At::Point(id))[0], 200);
}

#[test]
fn a_crash_at_any_write_loses_nothing_acknowledged() {
    let mut cuts = 0;
    for cut in 0.. {
        let fixture = Fixture::new();
        let storage = Storage::failing_after(cut, Fault::Crash);
        let mut promised = Vec::new();
        let mut flushed = [vec![0; SIZE as usize], vec![0; SIZE as usize]];
        let done = {
            let store = Store::open_with(fixture.folder.path(), &fixture.key, storage).unwrap();
            work(&fixture, &store, &mut promised, &mut flushed)
        };
        promised_is_there(&fixture, &promised, &flushed, &format!("cut at write {cut}"));
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 60, "the work has more writes than {cuts}");
}

#[test]
fn a_full_disk_at_any_write_is_said_and_work_goes_on_when_there_is_room() {
    for cut in 0.. {
        let fixture = Fixture::new();
        let storage = Storage::failing_after(cut, Fault::Full);
        let store = Store::open_with(fixture.folder.path(), &fixture.key, storage.clone()).unwrap();
        let mut promised = Vec::new();
        let mut flushed = [vec![0; SIZE as usize], vec![0; SIZE as usize]];
        let Err(error) = work(&fixture, &store, &mut promised, &mut flushed) else {
            break;
        };
        assert!(
            matches!(error, ReplicaError::Full { .. }),
            "cut at write {cut}: {error}"
        );
        assert_eq!(error.disposition(), Disposition::Retry);
        storage.heal();
        // In the same process: go on where it stopped.
        let mut writer = store.begin(fixture.machine, 50).unwrap();
        writer.append(fixture.disks[1], frame(90, 2, 250)).unwrap();
        let id = writer.seal(spec(500)).unwrap();
        assert_eq!(fixture.read(&store, 1, At::Point(id))[90 * BLOCK_BYTES], 250);
        drop((writer, store));
        promised_is_there(&fixture, &promised, &flushed, &format!("full at write {cut}"));
    }
}

#[test]
fn an_append_that_met_a_full_disk_can_be_given_again() {
    for cut in 0..6 {
        let fixture = Fixture::new();
        let storage = Storage::failing_after(cut, Fault::Full);
        let store = Store::open_with(fixture.folder.path(), &fixture.key, storage.clone()).unwrap();
        // `begin` may write too: only the appends are of interest here.
        let Ok(mut writer) = store.begin(fixture.machine, 0) else {
            continue;
        };
        let first = writer.append(fixture.disks[0], frame(3, 4, 9));
        storage.heal();
        if first.is_err() {
            writer.append(fixture.disks[0], frame(3, 4, 9)).unwrap();
        }
        writer.append(fixture.disks[0], frame(10, 1, 8)).unwrap();
        let id = writer.seal(spec(1)).unwrap();
        drop((writer, store));
        let bytes = fixture.read(&fixture.open(), 0, At::Point(id));
        assert_eq!(
            (
                bytes[3 * BLOCK_BYTES],
                bytes[7 * BLOCK_BYTES],
                bytes[10 * BLOCK_BYTES]
            ),
            (9, 0, 8)
        );
    }
}

#[test]
fn a_lower_generation_is_refused_also_after_a_restart() {
    let fixture = Fixture::new();
    fixture.open().begin(fixture.machine, 5).unwrap();
    let refused = fixture.open().begin(fixture.machine, 4);
    assert!(matches!(refused, Err(ReplicaError::Fenced { generation: 4, .. })));
}

#[test]
fn damage_is_named_with_the_points_it_costs_and_never_read_as_data() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut writer = store.begin(fixture.machine, 1).unwrap();
    let mut points = Vec::new();
    for number in 1..4 {
        writer
            .append(fixture.disks[0], frame(number, 1, number as u8))
            .unwrap();
        points.push(writer.seal(spec(number as i64)).unwrap());
    }
    drop(writer);
    let layer = fixture.folder.path().join(format!(
        "machines/{}/{}/00000001.layer",
        fixture.machine, fixture.disks[0]
    ));
    let file = File::options().read(true).write(true).open(&layer).unwrap();
    let mut second = [0; 8];
    file.read_exact_at(&mut second, 80).unwrap();
    let second = 80 + 16 + u64::from(u32::from_le_bytes([second[4], second[5], second[6], second[7]]));
    let mut byte = [0];
    file.read_exact_at(&mut byte, second + 40).unwrap();
    file.write_all_at(&[byte[0] ^ 1], second + 40).unwrap();
    let report = store.verify(&mut |_, _| ()).unwrap();
    assert_eq!(report.damages.len(), 1);
    assert_eq!(
        (report.damages[0].offset, report.damages[0].points.as_slice()),
        (second, &points[1..])
    );
    let image = store
        .image(fixture.machine, fixture.disks[0], At::Point(points[2]))
        .unwrap();
    let mut bytes = [0; BLOCK_BYTES];
    assert!(matches!(
        image.read_at(2 * BLOCK_BYTES as u64, &mut bytes),
        Err(ReplicaError::Corrupt { .. })
    ));
    image.read_at(BLOCK_BYTES as u64, &mut bytes).unwrap();
    assert_eq!(bytes[0], 1);
}

#[test]
fn an_image_reads_on_while_its_layers_are_folded_and_removed() {
    let fixture = Fixture::new();
    let mut first = None;
    for round in 1..5u64 {
        let store = fixture.open();
        let mut writer = store.begin(fixture.machine, round).unwrap();
        writer
            .append(fixture.disks[0], frame(round * 4, 8, round as u8))
            .unwrap();
        let id = writer.seal(spec(round as i64)).unwrap();
        first.get_or_insert(id);
    }
    let store = fixture.open();
    let image = store
        .image(fixture.machine, fixture.disks[0], At::Point(first.unwrap()))
        .unwrap();
    let newest = fixture.read(&store, 0, At::Latest);
    let before = store.machines()[0].stored_bytes;
    let none = Retention {
        all_nanos: -1,
        step_nanos: 1,
        steps_until_nanos: -1,
        keep_nanos: -1,
    };
    assert_eq!(store.prune(fixture.machine, i64::MAX, &none).unwrap().len(), 3);
    assert!(store.compact(fixture.machine).unwrap() > 0);
    assert!(store.machines()[0].stored_bytes < before);
    let mut block = [0; BLOCK_BYTES];
    image.read_at(4 * BLOCK_BYTES as u64, &mut block).unwrap();
    assert_eq!(block[0], 1);
    assert!(fixture.read(&store, 0, At::Latest) == newest);
    assert_eq!(image.status(0, SIZE).unwrap()[0], (4 * BLOCK_BYTES as u64, true));
}

#[test]
fn a_machine_is_removed_whole_wherever_its_removal_is_cut_off() {
    for fault in [Fault::Crash, Fault::Once] {
        for write in 0.. {
            let fixture = Fixture::new();
            {
                let store = fixture.open();
                let mut writer = store.begin(fixture.machine, 1).unwrap();
                writer.append(fixture.disks[0], frame(1, 2, 3)).unwrap();
                writer.seal(spec(1)).unwrap();
            }
            let storage = Storage::failing_after(i64::MAX, fault);
            let store = Store::open_with(fixture.folder.path(), &fixture.key, storage.clone()).unwrap();
            storage.fail_after(write);
            let removed = store.remove_machine(fixture.machine);
            let story = format!("{fault:?} at write {write}");
            assert_eq!(removed.is_ok(), !storage.has_failed(), "{story}");
            storage.heal();
            let store = if fault == Fault::Once {
                // Again in the same process.
                if removed.is_err() {
                    store.remove_machine(fixture.machine).unwrap();
                }
                store
            } else {
                drop(store);
                fixture.open()
            };
            let folders = std::fs::read_dir(fixture.folder.path().join("machines")).unwrap();
            let left = folders.count();
            assert_eq!(
                left,
                store.machines().len(),
                "{story}: bytes of a machine that is none"
            );
            if left > 0 {
                // As if nothing had been asked.
                assert_eq!(store.points(fixture.machine).unwrap().len(), 1, "{story}");
                store.remove_machine(fixture.machine).unwrap();
            }
            assert!(matches!(
                store.remove_machine(fixture.machine),
                Err(ReplicaError::NoMachine(_))
            ));
            // The same machine may come again.
            store.register_machine(fixture.machine, "web").unwrap();
            assert_eq!(store.points(fixture.machine).unwrap(), [], "{story}");
            if removed.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn wrong_keys_second_writers_and_bad_frames_are_refused() {
    let fixture = Fixture::new();
    assert!(matches!(
        Store::open_read_only(fixture.folder.path(), &VaultKey::generate()),
        Err(ReplicaError::WrongKey)
    ));
    let store = fixture.open();
    assert!(matches!(
        Store::open(fixture.folder.path(), &fixture.key),
        Err(ReplicaError::Locked(_))
    ));
    let read_only = Store::open_read_only(fixture.folder.path(), &fixture.key).unwrap();
    assert!(matches!(
        read_only.begin(fixture.machine, 9),
        Err(ReplicaError::ReadOnly)
    ));
    let mut writer = store.begin(fixture.machine, 1).unwrap();
    assert!(matches!(
        writer.append(fixture.disks[0], frame(BLOCKS - 1, 2, 1)),
        Err(ReplicaError::OutOfDisk(_))
    ));
    assert!(matches!(
        writer.append(fixture.disks[0], Bytes::from_static(b"no")),
        Err(ReplicaError::Frame(_))
    ));
    let changed = DiskSpec {
        id: fixture.disks[0],
        name: String::new(),
        size_bytes: SIZE * 2,
    };
    assert!(matches!(
        store.register_disk(fixture.machine, changed),
        Err(ReplicaError::SizeChanged { .. })
    ));
    assert!(store.remove_machine(fixture.machine).unwrap() < 1000);
    assert!(matches!(
        writer.append(fixture.disks[0], frame(1, 2, 1)),
        Err(ReplicaError::Fenced { .. })
    ));
}

#[test]
fn a_pinned_point_stays() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut writer = store.begin(fixture.machine, 1).unwrap();
    writer.append(fixture.disks[0], frame(1, 1, 1)).unwrap();
    let first = writer.seal(spec(1)).unwrap();
    writer.seal(spec(2)).unwrap();
    let none = Retention {
        all_nanos: -1,
        step_nanos: 1,
        steps_until_nanos: -1,
        keep_nanos: -1,
    };
    store.pin(fixture.machine, first, "drill").unwrap();
    store.pin(fixture.machine, first, "drill").unwrap();
    assert_eq!(store.prune(fixture.machine, i64::MAX, &none).unwrap(), []);
    drop(writer);
    drop(store);
    let store = fixture.open();
    store.unpin(fixture.machine, first, "drill").unwrap();
    assert_eq!(store.prune(fixture.machine, i64::MAX, &none).unwrap(), [first]);
}

#[test]
fn only_one_point_is_kept_with_those_that_are_pinned() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut writer = store.begin(fixture.machine, 1).unwrap();
    let mut points = Vec::new();
    for byte in 1..=4 {
        writer.append(fixture.disks[0], frame(1, 1, byte)).unwrap();
        points.push(writer.seal(spec(i64::from(byte))).unwrap());
    }
    store.pin(fixture.machine, points[0], "test").unwrap();
    assert_eq!(
        store.pins(fixture.machine).unwrap(),
        [(points[0], "test".to_owned())]
    );
    let third = |point: &RecoveryPoint| point.id == points[2];
    let gone = store.keep_only(fixture.machine, third).unwrap();
    assert_eq!(gone, [points[1], points[3]]);
    assert_eq!(store.keep_only(fixture.machine, third).unwrap(), []);
    store.compact(fixture.machine).unwrap();
    drop((writer, store));
    let store = fixture.open();
    let left: Vec<_> = store
        .points(fixture.machine)
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    assert_eq!(left, [points[0], points[2]]);
    for (point, byte) in [(points[0], 1), (points[2], 3)] {
        assert_eq!(
            fixture.read(&store, 0, At::Point(point))[BLOCK_BYTES..2 * BLOCK_BYTES],
            [byte; BLOCK_BYTES]
        );
    }
}
