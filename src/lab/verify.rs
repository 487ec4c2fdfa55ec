//! Judges a ledger and its table from their folder alone, as a booted replica does.
use super::ledger::{
    COPY_LEN, Entry, Hash, Header, LEDGER_FILE, RECORD_LEN, SlotCopy, TABLE_FILE, next_slot, read_record,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// More than this many are counted, not told.
const PROBLEMS_TOLD: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub part: Part,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    Ledger,
    Table,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Ledger => "ledger",
            Part::Table => "table",
        };
        write!(out, "{part}: {}", self.text)
    }
}

/// What was found in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Name of the machine that the ledger was made for.
    pub name: String,
    /// Whole, chained entries.
    pub entries: u64,
    /// Hash of the last one, in hex.
    pub last_hash: String,
    pub last_stamp_unix_nanos: Option<i64>,
    pub ledger_ok: bool,
    pub table_ok: bool,
    /// A last record that a crash cut off in the making.
    pub torn_tail: bool,
    /// The slot that had been written, wholly or in part, for the entry that was next.
    pub slot_in_flight: Option<u32>,
    /// The first of them; see `problem_count`.
    pub problems: Vec<Problem>,
    pub problem_count: usize,
}

impl Verdict {
    pub fn ok(&self) -> bool {
        self.ledger_ok && self.table_ok
    }

    /// The first problem of a part, and how many more there are.
    pub fn first_problem(&self, part: Part) -> Option<String> {
        let problem = self.problems.iter().find(|problem| problem.part == part)?;
        match self.problem_count {
            0 | 1 => Some(problem.text.clone()),
            count => Some(format!("{} ({} problems in all)", problem.text, count)),
        }
    }

    fn problem(&mut self, part: Part, text: String) {
        match part {
            Part::Ledger => self.ledger_ok = false,
            Part::Table => self.table_ok = false,
        }
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_TOLD {
            self.problems.push(Problem { part, text });
        }
    }
}

/// What the writer needs to go on.
pub(super) struct State {
    pub header: Header,
    pub last: u64,
    pub last_hash: Hash,
    pub last_stamp: Option<i64>,
    /// Per slot: the version that the ledger names last; 0 is none.
    pub versions: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Mention {
    version: u32,
    entry: u64,
    digest: Hash,
}

/// Reads everything. Never fails: what cannot be read is a problem, too.
pub fn verify(folder: &Path) -> Verdict {
    replay(folder).0
}

pub(super) fn replay(folder: &Path) -> (Verdict, Option<State>) {
    let mut verdict = Verdict {
        ledger_ok: true,
        table_ok: true,
        ..Verdict::default()
    };
    let mut mentions = Vec::new();
    let state = match read_ledger(folder, &mut verdict, &mut mentions) {
        Ok(state) => state,
        Err(error) => {
            verdict.problem(Part::Ledger, format!("cannot be read: {error}"));
            None
        }
    };
    let Some(state) = state else {
        verdict.problem(
            Part::Table,
            "cannot be judged without the ledger's header".to_owned(),
        );
        return (verdict, None);
    };
    if let Err(error) = read_table(folder, &state, &mentions, &mut verdict) {
        verdict.problem(Part::Table, format!("cannot be read: {error}"));
    }
    (verdict, Some(state))
}

/// The two newest mentions of each slot, the newest first.
type Mentions = Vec<[Option<Mention>; 2]>;

fn read_ledger(folder: &Path, verdict: &mut Verdict, mentions: &mut Mentions) -> io::Result<Option<State>> {
    let file = File::open(folder.join(LEDGER_FILE))?;
    let records = file.metadata()?.len().div_ceil(RECORD_LEN as u64);
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut record = [0; RECORD_LEN];
    let header = match read_record(&mut reader, &mut record)? {
        RECORD_LEN => Header::decode(&record),
        _ => None,
    };
    let Some(header) = header else {
        verdict.problem(Part::Ledger, "its header is damaged".to_owned());
        return Ok(None);
    };
    verdict.name.clone_from(&header.name);
    mentions.resize(header.slots as usize, [None; 2]);
    let mut state = State {
        last: 0,
        last_hash: header.hash,
        last_stamp: None,
        versions: vec![0; header.slots as usize],
        header,
    };
    for place in 1.. {
        let len = read_record(&mut reader, &mut record)?;
        if len == 0 {
            break;
        }
        let is_last = place + 1 >= records;
        let (entry, follows) = Entry::decode(&record, &state.last_hash);
        if len < RECORD_LEN || (is_last && !follows) {
            // Only the table can tell whether this may be; it knows what was in flight.
            verdict.torn_tail = true;
            break;
        }
        if !follows {
            let text = if entry.number == place {
                format!("entry {place} is damaged or does not follow from the one before")
            } else {
                format!("entry {} stands in the place of entry {place}", entry.number)
            };
            verdict.problem(Part::Ledger, text);
        } else if let Some(text) = contradiction(&entry, place, &state) {
            verdict.problem(Part::Ledger, text);
        }
        state.last = place;
        state.last_hash = entry.hash;
        state.last_stamp = Some(entry.stamp_unix_nanos);
        if let Some(of_slot) = mentions.get_mut(entry.slot as usize) {
            *of_slot = [
                Some(Mention {
                    version: entry.slot_version,
                    entry: place,
                    digest: entry.slot_digest,
                }),
                of_slot[0],
            ];
            state.versions[entry.slot as usize] = entry.slot_version;
        }
    }
    verdict.entries = state.last;
    verdict.last_hash = hex::encode(state.last_hash);
    verdict.last_stamp_unix_nanos = state.last_stamp;
    Ok(Some(state))
}

/// An entry that is chained, yet cannot be what the writer wrote.
fn contradiction(entry: &Entry, place: u64, state: &State) -> Option<String> {
    if entry.number != place {
        return Some(format!(
            "entry {} stands in the place of entry {place}",
            entry.number
        ));
    }
    if state
        .last_stamp
        .is_some_and(|stamp| entry.stamp_unix_nanos < stamp)
    {
        return Some(format!("entry {place} is older than the one before"));
    }
    let slot = next_slot(&state.last_hash, state.header.slots);
    let version = state.versions.get(slot as usize).copied().unwrap_or(0);
    if entry.slot != slot || entry.slot_version != version.wrapping_add(1) {
        return Some(format!(
            "entry {place} names version {} of slot {}, but version {} of slot {slot} was due",
            entry.slot_version,
            entry.slot,
            version.wrapping_add(1)
        ));
    }
    None
}

fn read_table(folder: &Path, state: &State, mentions: &Mentions, verdict: &mut Verdict) -> io::Result<()> {
    let file = File::open(folder.join(TABLE_FILE))?;
    let (len, expected) = (
        file.metadata()?.len(),
        mentions.len() as u64 * 2 * COPY_LEN as u64,
    );
    if len != expected {
        verdict.problem(Part::Table, format!("it has {len} bytes instead of {expected}"));
        return Ok(());
    }
    // A broken ledger says nothing reliable about the table: then only the checksums are judged.
    let compare = verdict.ledger_ok;
    let due = next_slot(&state.last_hash, state.header.slots);
    let mut newest = 0;
    let mut due_is_whole = false;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut bytes = [0; COPY_LEN];
    for (slot, of_slot) in (0_u32..).zip(mentions) {
        let next_version = of_slot[0].map_or(0, |mention| mention.version).wrapping_add(1);
        for place in 0..2 {
            reader.read_exact(&mut bytes)?;
            let copy = SlotCopy::decode(&bytes);
            let blank = bytes.iter().all(|byte| *byte == 0);
            newest = newest.max(copy.as_ref().map_or(0, |copy| copy.entry));
            if !compare {
                if copy.as_ref().is_none_or(|copy| copy.slot != slot) && !blank {
                    verdict.problem(Part::Table, format!("slot {slot}: a copy is damaged"));
                }
                continue;
            }
            let mention = of_slot
                .iter()
                .flatten()
                .find(|mention| mention.version % 2 == place);
            let as_mentioned = match (mention, &copy) {
                (Some(mention), Some(copy)) => {
                    (copy.slot, copy.version, copy.entry, copy.digest)
                        == (slot, mention.version, mention.entry, mention.digest)
                }
                (None, None) => blank,
                _ => false,
            };
            if as_mentioned {
                continue;
            }
            // Step N + 1 may have been at work here, and nowhere else.
            if slot == due && place == next_version % 2 {
                match &copy {
                    None => {
                        verdict.slot_in_flight = Some(slot);
                        continue;
                    }
                    Some(copy)
                        if (copy.slot, copy.version, copy.entry, copy.ledger_hash)
                            == (slot, next_version, state.last + 1, state.last_hash) =>
                    {
                        verdict.slot_in_flight = Some(slot);
                        due_is_whole = true;
                        continue;
                    }
                    Some(_) => {}
                }
            }
            verdict.problem(Part::Table, mismatch(slot, mention, copy.as_ref()));
        }
    }
    if newest > state.last + 1 {
        verdict.problem(
            Part::Ledger,
            format!(
                "it ends at entry {}, but the table was written up to entry {newest}: entries are missing",
                state.last
            ),
        );
    }
    if compare && verdict.torn_tail && !due_is_whole {
        verdict.problem(
            Part::Ledger,
            format!(
                "the record after entry {} is damaged, and it was not being written: its slot was not",
                state.last
            ),
        );
    }
    Ok(())
}

fn mismatch(slot: u32, mention: Option<&Mention>, copy: Option<&SlotCopy>) -> String {
    match (mention, copy) {
        (Some(mention), Some(copy)) if copy.slot == slot => format!(
            "slot {slot} holds version {} (entry {}), but the ledger says version {} (entry {})",
            copy.version, copy.entry, mention.version, mention.entry
        ),
        (_, Some(copy)) if copy.slot != slot => {
            format!("slot {slot} holds the content of slot {}", copy.slot)
        }
        (Some(mention), None) => {
            format!(
                "slot {slot} is damaged where version {} (entry {}) was",
                mention.version, mention.entry
            )
        }
        (None, Some(copy)) => {
            format!("slot {slot} holds version {}, which no entry names", copy.version)
        }
        _ => format!("slot {slot} is damaged where nothing was written"),
    }
}
