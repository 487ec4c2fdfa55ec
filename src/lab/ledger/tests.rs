//! Breaks a ledger and its table in each way, and sees it named.
use super::{
    COPY_LEN, Entry, LEDGER_FILE, Ledger, LedgerError, RECORD_LEN, SlotCopy, TABLE_FILE, copy_offset, create,
    entries, entries_at, next_slot,
};
use crate::lab::verify::{Part, Verdict, verify};
use std::path::{Path, PathBuf};

const SLOTS: u32 = 8;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn with_entries(count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), "web1", SLOTS).unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        for number in 1..=count {
            assert_eq!(ledger.append(1000 + number.cast_signed()).unwrap(), number);
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.file(name)).unwrap();
        change(&mut bytes);
        std::fs::write(self.file(name), bytes).unwrap();
    }

    fn records(&self) -> Vec<Entry> {
        let bytes = std::fs::read(self.file(LEDGER_FILE)).unwrap();
        bytes
            .chunks_exact(RECORD_LEN)
            .skip(1)
            .map(|record| Entry::decode(record.try_into().unwrap(), &[0; 32]).0)
            .collect()
    }

    /// Does the first half of the next step: the slot is written, the record is not. The files before it.
    fn slot_in_flight(&self) -> (u32, Vec<u8>, Vec<u8>) {
        let table = std::fs::read(self.file(TABLE_FILE)).unwrap();
        let ledger = std::fs::read(self.file(LEDGER_FILE)).unwrap();
        let slot = next_slot(&self.records().last().unwrap().hash, SLOTS);
        Ledger::open(self.path()).unwrap().append(5000).unwrap();
        std::fs::write(self.file(LEDGER_FILE), &ledger).unwrap();
        (slot, table, ledger)
    }

    fn broken(&self, part: Part, text: &str) -> Verdict {
        let verdict = verify(self.path());
        let told: Vec<String> = verdict.problems.iter().map(ToString::to_string).collect();
        assert!(
            verdict
                .problems
                .iter()
                .any(|problem| problem.part == part && problem.text.contains(text)),
            "{text:?} is not in {told:?}"
        );
        let refused = Ledger::open(self.path())
            .err()
            .expect("the writer refuses it, too");
        assert!(matches!(refused, LedgerError::Broken { .. }));
        verdict
    }
}

fn record(number: usize) -> std::ops::Range<usize> {
    number * RECORD_LEN..(number + 1) * RECORD_LEN
}

fn copy(slot: u32, version: u32) -> std::ops::Range<usize> {
    let begin = usize::try_from(copy_offset(slot, version)).unwrap();
    begin..begin + COPY_LEN
}

#[test]
fn a_whole_ledger_is_whole() {
    let fixture = Fixture::with_entries(0);
    let verdict = verify(fixture.path());
    assert!(verdict.ok(), "{verdict:?}");
    assert_eq!((verdict.entries, verdict.name.as_str()), (0, "web1"));
    let fixture = Fixture::with_entries(100);
    let verdict = verify(fixture.path());
    assert!(verdict.ok(), "{verdict:?}");
    assert_eq!(verdict.entries, 100);
    assert_eq!(
        verdict.last_hash,
        hex::encode(fixture.records().last().unwrap().hash)
    );
    assert_eq!(verdict.last_stamp_unix_nanos, Some(1100));
    assert!(!verdict.torn_tail);
    assert_eq!(verdict.slot_in_flight, None);
}

#[test]
fn goes_on_where_it_ended_and_a_clock_set_back_does_no_harm() {
    let fixture = Fixture::with_entries(10);
    let mut ledger = Ledger::open(fixture.path()).unwrap();
    assert_eq!(ledger.append(3).unwrap(), 11);
    assert_eq!(fixture.records()[10].stamp_unix_nanos, 1010);
    assert!(verify(fixture.path()).ok());
}

#[test]
fn entries_are_counted_at_an_instant() {
    let fixture = Fixture::with_entries(50);
    for (instant, count) in [(0, 0), (1000, 0), (1001, 1), (1025, 25), (1050, 50), (9999, 50)] {
        assert_eq!(
            entries_at(fixture.path(), instant).unwrap(),
            count,
            "at {instant}"
        );
    }
    // The record that is being written is not counted.
    fixture.edit(LEDGER_FILE, |bytes| bytes.extend([0; 60]));
    assert_eq!(entries(fixture.path()).unwrap(), 50);
    fixture.edit(LEDGER_FILE, |bytes| bytes.extend([0; 68]));
    assert_eq!(entries(fixture.path()).unwrap(), 50);
    assert_eq!(entries(Fixture::with_entries(0).path()).unwrap(), 0);
}

/// All that a crash may leave of a step, byte for byte of the record and in parts of the slot.
#[test]
fn what_a_crash_may_leave_is_allowed_and_is_gone_on_from() {
    let fixture = Fixture::with_entries(40);
    let (slot, table, ledger) = fixture.slot_in_flight();
    let verdict = verify(fixture.path());
    assert!(verdict.ok(), "{verdict:?}");
    assert_eq!((verdict.entries, verdict.slot_in_flight), (40, Some(slot)));
    let whole = std::fs::read(fixture.file(TABLE_FILE)).unwrap();
    let begin = whole
        .iter()
        .zip(&table)
        .position(|(new, old)| new != old)
        .unwrap();
    for part in [1, 512, 2048, 4095] {
        let mut torn = table.clone();
        let from = begin / COPY_LEN * COPY_LEN;
        torn[from..from + part].copy_from_slice(&whole[from..from + part]);
        std::fs::write(fixture.file(TABLE_FILE), &torn).unwrap();
        let verdict = verify(fixture.path());
        assert!(verdict.ok(), "{part} bytes of the slot: {verdict:?}");
    }
    let next = {
        std::fs::write(fixture.file(TABLE_FILE), &table).unwrap();
        Ledger::open(fixture.path()).unwrap().append(5000).unwrap();
        std::fs::read(fixture.file(LEDGER_FILE)).unwrap()
    };
    for len in 1..RECORD_LEN {
        for tail in [
            next[ledger.len()..ledger.len() + len].to_vec(),
            vec![0; RECORD_LEN],
        ] {
            let torn = [&ledger[..], &tail].concat();
            std::fs::write(fixture.file(LEDGER_FILE), torn).unwrap();
            let verdict = verify(fixture.path());
            assert!(verdict.ok(), "{len} bytes of the record: {verdict:?}");
            assert!(verdict.torn_tail);
            assert_eq!(verdict.entries, 40);
        }
    }
    assert_eq!(Ledger::open(fixture.path()).unwrap().append(6000).unwrap(), 41);
    let verdict = verify(fixture.path());
    assert!(verdict.ok() && !verdict.torn_tail && verdict.entries == 41);
}

#[test]
fn a_torn_slot_is_excused_only_where_one_was_being_written() {
    let fixture = Fixture::with_entries(100);
    let records = fixture.records();
    let due = next_slot(&records.last().unwrap().hash, SLOTS);
    let whole = std::fs::read(fixture.file(TABLE_FILE)).unwrap();
    let mut excused = 0;
    for slot in 0..SLOTS {
        for version in 0..2 {
            let mut bytes = whole.clone();
            bytes[copy(slot, version).start + 777] ^= 1;
            std::fs::write(fixture.file(TABLE_FILE), bytes).unwrap();
            if verify(fixture.path()).ok() {
                assert_eq!(slot, due);
                excused += 1;
            } else {
                fixture.broken(Part::Table, &format!("slot {slot} is damaged"));
            }
        }
    }
    assert_eq!(excused, 1);
}

#[test]
fn any_flipped_byte_of_the_ledger_is_named() {
    let fixture = Fixture::with_entries(30);
    let whole = std::fs::read(fixture.file(LEDGER_FILE)).unwrap();
    for number in [1, 17, 29] {
        for byte in 0..RECORD_LEN {
            let mut bytes = whole.clone();
            bytes[number * RECORD_LEN + byte] ^= 0x40;
            std::fs::write(fixture.file(LEDGER_FILE), bytes).unwrap();
            let verdict = verify(fixture.path());
            assert!(!verdict.ledger_ok, "byte {byte} of entry {number}");
            let text = verdict.first_problem(Part::Ledger).unwrap();
            assert!(
                text.contains(&format!("entry {number} "))
                    || text.contains(&format!("place of entry {number}")),
                "{text}"
            );
        }
    }
    for byte in 0..RECORD_LEN {
        let mut bytes = whole.clone();
        bytes[byte] ^= 1;
        std::fs::write(fixture.file(LEDGER_FILE), bytes).unwrap();
        fixture.broken(Part::Ledger, "header is damaged");
    }
}

#[test]
fn a_dropped_entry_is_named() {
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| {
        bytes.drain(record(17));
    });
    let verdict = fixture.broken(Part::Ledger, "entry 18 stands in the place of entry 17");
    assert!(!verdict.ledger_ok);
}

#[test]
fn entries_missing_from_the_end_are_seen_by_the_table() {
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| bytes.truncate(RECORD_LEN * 21));
    fixture.broken(
        Part::Ledger,
        "ends at entry 20, but the table was written up to entry 30",
    );
    // Even two; one alone is what a crash before its append leaves, and only who counted it knows better.
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| bytes.truncate(RECORD_LEN * 29));
    fixture.broken(Part::Ledger, "entries are missing");
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| bytes.truncate(RECORD_LEN * 30));
    let verdict = verify(fixture.path());
    assert!(verdict.ok() && verdict.entries == 29);
}

#[test]
fn swapped_records_are_named() {
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| {
        let (seventh, eighth) = (bytes[record(7)].to_vec(), bytes[record(8)].to_vec());
        bytes[record(7)].copy_from_slice(&eighth);
        bytes[record(8)].copy_from_slice(&seventh);
    });
    fixture.broken(Part::Ledger, "entry 8 stands in the place of entry 7");
}

#[test]
fn a_slot_as_it_was_before_is_named() {
    // A whole older copy in the place of a newer one: what a lost or late block looks like.
    let fixture = Fixture::with_entries(60);
    let records = fixture.records();
    let due = next_slot(&records.last().unwrap().hash, SLOTS);
    let entry = records
        .iter()
        .rev()
        .find(|entry| entry.slot != due && entry.slot_version >= 3)
        .unwrap();
    let table = fixture.file(TABLE_FILE);
    let older = {
        let again = Fixture::with_entries(0);
        let mut ledger = Ledger::open(again.path()).unwrap();
        let mut found = None;
        for number in 1..=60_i64 {
            ledger.append(1000 + number).unwrap();
            let bytes = std::fs::read(again.file(TABLE_FILE)).unwrap();
            let bytes = bytes[copy(entry.slot, entry.slot_version)].to_vec();
            let parsed = SlotCopy::decode(bytes[..].try_into().unwrap());
            if parsed.is_some_and(|parsed| parsed.version == entry.slot_version - 2) {
                found = Some(bytes);
            }
        }
        found.unwrap()
    };
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[copy(entry.slot, entry.slot_version)].copy_from_slice(&older);
    std::fs::write(&table, bytes).unwrap();
    let verdict = fixture.broken(
        Part::Table,
        &format!("slot {} holds version {} ", entry.slot, entry.slot_version - 2),
    );
    assert!(verdict.ledger_ok);
}

#[test]
fn a_slot_in_the_wrong_place_and_a_blank_one_are_named() {
    let fixture = Fixture::with_entries(60);
    let due = next_slot(&fixture.records().last().unwrap().hash, SLOTS);
    let (one, other) = ((due + 1) % SLOTS, (due + 2) % SLOTS);
    let whole = std::fs::read(fixture.file(TABLE_FILE)).unwrap();
    let mut bytes = whole.clone();
    bytes[copy(one, 0)].copy_from_slice(&whole[copy(other, 0)]);
    std::fs::write(fixture.file(TABLE_FILE), &bytes).unwrap();
    fixture.broken(
        Part::Table,
        &format!("slot {one} holds the content of slot {other}"),
    );
    let mut bytes = whole.clone();
    bytes[copy(one, 1)].fill(0);
    std::fs::write(fixture.file(TABLE_FILE), &bytes).unwrap();
    fixture.broken(Part::Table, &format!("slot {one} is damaged"));
}

#[test]
fn truncated_files_and_missing_files_are_named() {
    let fixture = Fixture::with_entries(30);
    fixture.edit(TABLE_FILE, |bytes| bytes.truncate(COPY_LEN * 3));
    fixture.broken(Part::Table, "it has 12288 bytes instead of 65536");
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| bytes.truncate(RECORD_LEN * 20 + 5));
    fixture.broken(Part::Ledger, "entries are missing");
    let fixture = Fixture::with_entries(30);
    // Cut in the middle of an acknowledged record that was followed by nothing: its slot is whole, so it may have been in
    // flight. Cut with the slot gone as well, it may not.
    std::fs::remove_file(fixture.file(TABLE_FILE)).unwrap();
    fixture.broken(Part::Table, "cannot be read");
    std::fs::remove_file(fixture.file(LEDGER_FILE)).unwrap();
    fixture.broken(Part::Ledger, "cannot be read");
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| bytes.truncate(100));
    fixture.broken(Part::Ledger, "header is damaged");
}

#[test]
fn a_tail_that_nobody_was_writing_is_named() {
    let fixture = Fixture::with_entries(30);
    fixture.edit(LEDGER_FILE, |bytes| bytes.extend([7; RECORD_LEN]));
    fixture.broken(Part::Ledger, "it was not being written");
}

#[test]
fn a_ledger_of_older_state_with_a_newer_table_and_the_reverse_are_named() {
    let fixture = Fixture::with_entries(30);
    let (old_ledger, old_table) = (
        std::fs::read(fixture.file(LEDGER_FILE)).unwrap(),
        std::fs::read(fixture.file(TABLE_FILE)).unwrap(),
    );
    let mut ledger = Ledger::open(fixture.path()).unwrap();
    for _ in 0..5 {
        ledger.append(2000).unwrap();
    }
    let new_ledger = std::fs::read(fixture.file(LEDGER_FILE)).unwrap();
    std::fs::write(fixture.file(LEDGER_FILE), old_ledger).unwrap();
    fixture.broken(Part::Ledger, "entries are missing");
    std::fs::write(fixture.file(LEDGER_FILE), new_ledger).unwrap();
    std::fs::write(fixture.file(TABLE_FILE), old_table).unwrap();
    fixture.broken(Part::Table, "but the ledger says");
}

#[test]
fn a_foreign_header_is_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(create(folder.path(), "", 1), Err(LedgerError::Invalid)));
    assert!(matches!(create(folder.path(), "a", 0), Err(LedgerError::Invalid)));
    assert!(matches!(
        create(folder.path(), "a", u32::MAX),
        Err(LedgerError::Invalid)
    ));
}
