//! What a receiver must remember over a crash: which content its disks have.
//!
//! One file per machine that is received. It is written durably before the first byte of a step is, so that what it says is
//! never better than the disk. A file that is missing or damaged costs a comparison, nothing more.
use super::ReceiveError;
use crate::agent::inventory;
use crate::block::{DiskId, MachineId, PointId};
use crate::wire::facts::DiskFacts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Content {
    #[default]
    Unknown,
    /// Durably the content of this point.
    At { point: PointId },
    /// On the way to `point`. With `from`: a mix of that point and `point`. Without: equal to `point` up to `compared_bytes`,
    /// unknown behind.
    #[serde(rename_all = "camelCase")]
    Towards {
        point: PointId,
        from: Option<PointId>,
        compared_bytes: u64,
    },
}

/// What brings a disk nearer to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Takes the blocks that the chain says were written between the two; right from any mix of them.
    Delta {
        from: PointId,
        to: PointId,
    },
    /// Compares from this byte on, and takes what differs.
    Compare {
        to: PointId,
        from_bytes: u64,
    },
}

impl Content {
    /// The point that the disk is equal to.
    pub fn holds(&self) -> Option<PointId> {
        match self {
            Self::At { point } => Some(*point),
            _ => None,
        }
    }

    /// A step that was begun is ended first: its blocks are known, and so is what the disk holds afterwards.
    pub fn step(&self, target: PointId) -> Step {
        match *self {
            Self::At { point } if point == target => Step::Nothing,
            Self::At { point } => Step::Delta {
                from: point,
                to: target,
            },
            Self::Towards {
                point,
                from: Some(from),
                ..
            } => Step::Delta { from, to: point },
            Self::Towards {
                point,
                from: None,
                compared_bytes,
            } => Step::Compare {
                to: point,
                from_bytes: compared_bytes,
            },
            Self::Unknown => Step::Compare {
                to: target,
                from_bytes: 0,
            },
        }
    }
}

impl Step {
    /// The points that must stay until the step has ended.
    pub fn keep(&self) -> Vec<PointId> {
        match *self {
            Self::Nothing => Vec::new(),
            Self::Delta { from, to } => vec![from, to],
            Self::Compare { to, .. } => vec![to],
        }
    }

    /// What the disk has to be called before the step writes.
    pub fn under_way(&self) -> Option<Content> {
        match *self {
            Self::Nothing => None,
            Self::Delta { from, to } => Some(Content::Towards {
                point: to,
                from: Some(from),
                compared_bytes: 0,
            }),
            Self::Compare { to, from_bytes } => Some(Content::Towards {
                point: to,
                from: None,
                compared_bytes: from_bytes,
            }),
        }
    }
}

/// A disk that is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    pub device: PathBuf,
    /// Empty where the disk has no name but what is written on it: that changes as it is received.
    pub stable_id: String,
    /// A device node says which disk it is until the next boot.
    pub boot_id: String,
    pub size_bytes: u64,
    pub content: Content,
}

impl Held {
    pub fn new(device: &Path, facts: &DiskFacts, content: Content) -> Self {
        let is_of_content = facts.stable_id.starts_with("gpt:") || facts.stable_id.starts_with("mbr:");
        Self {
            device: device.to_owned(),
            stable_id: if is_of_content {
                String::new()
            } else {
                facts.stable_id.clone()
            },
            boot_id: inventory::boot_id(),
            size_bytes: facts.size_bytes,
            content,
        }
    }

    /// Whether this is the same disk, as far as disks can be told apart.
    pub fn is_same_disk(&self, other: &Held) -> bool {
        let is_same_node = self.device == other.device && self.boot_id == other.boot_id;
        self.size_bytes == other.size_bytes
            && self.stable_id == other.stable_id
            && (!self.stable_id.is_empty() || is_same_node)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    machine: MachineId,
    disks: BTreeMap<DiskId, Held>,
}

pub struct StateFile {
    folder: PathBuf,
    path: PathBuf,
    body: Body,
    /// The file could not be read and was left aside.
    pub was_damaged: bool,
    /// Two receivers with one folder would each undo what the other knows.
    lock: File,
}

impl Drop for StateFile {
    /// Not left to the closing of the file: a child that the process is just making has a copy of it until its exec.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl StateFile {
    pub fn open(folder: &Path, machine: MachineId) -> Result<Self, ReceiveError> {
        let failed = |action, object: &Path, source| ReceiveError::State {
            action,
            object: object.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| failed("make", folder, source))?;
        let lock_path = folder.join("receive.lock");
        let lock = private()
            .open(&lock_path)
            .map_err(|source| failed("open", &lock_path, source))?;
        lock.try_lock()
            .map_err(|_| ReceiveError::AlreadyRuns(folder.to_owned()))?;
        let path = folder.join(format!("receive-{machine}.json"));
        let (body, was_damaged) = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Body>(&bytes) {
                Ok(body) if body.machine == machine => (Some(body), false),
                _ => (None, true),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, false),
            Err(source) => return Err(failed("read", &path, source)),
        };
        Ok(Self {
            folder: folder.to_owned(),
            path,
            body: body.unwrap_or(Body {
                machine,
                disks: BTreeMap::new(),
            }),
            was_damaged,
            lock,
        })
    }

    pub fn disk(&self, disk: DiskId) -> Option<&Held> {
        self.body.disks.get(&disk)
    }

    pub fn content(&self, disk: DiskId) -> Content {
        self.disk(disk).map_or(Content::Unknown, |held| held.content)
    }

    /// Durable on return.
    pub fn set(&mut self, disk: DiskId, held: Held) -> Result<(), ReceiveError> {
        self.body.disks.insert(disk, held);
        self.save()
    }

    /// Durable on return.
    pub fn set_content(&mut self, disk: DiskId, content: Content) -> Result<(), ReceiveError> {
        match self.body.disks.get_mut(&disk) {
            Some(held) if held.content != content => held.content = content,
            _ => return Ok(()),
        }
        self.save()
    }

    fn save(&self) -> Result<(), ReceiveError> {
        let fresh = self.path.with_extension("new");
        let write = || {
            let mut file = private().open(&fresh)?;
            file.set_len(0)?;
            file.write_all(&serde_json::to_vec_pretty(&self.body)?)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| ReceiveError::State {
            action: "write",
            object: self.path.clone(),
            source,
        })
    }
}

fn private() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(content: Content) -> Held {
        Held {
            device: "/dev/sdx".into(),
            stable_id: "wwn:1".into(),
            boot_id: "boot".into(),
            size_bytes: 8192,
            content,
        }
    }

    #[test]
    fn what_was_set_is_found_again_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let (machine, disk) = (MachineId::new(), DiskId::new());
        let content = Content::Towards {
            point: PointId::new(),
            from: Some(PointId::new()),
            compared_bytes: 0,
        };
        let mut state = StateFile::open(folder.path(), machine).unwrap();
        assert_eq!(state.content(disk), Content::Unknown);
        state.set(disk, held(content)).unwrap();
        assert!(
            matches!(
                StateFile::open(folder.path(), machine),
                Err(ReceiveError::AlreadyRuns(_))
            ),
            "a second receiver got the folder"
        );
        drop(state);
        let state = StateFile::open(folder.path(), machine).unwrap();
        assert_eq!(state.content(disk), content);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&state.path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        drop(state);
        // Another machine's file is its own.
        assert!(
            StateFile::open(folder.path(), MachineId::new())
                .unwrap()
                .disk(disk)
                .is_none()
        );
    }

    #[test]
    fn damage_costs_a_comparison_and_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (machine, disk) = (MachineId::new(), DiskId::new());
        let mut state = StateFile::open(folder.path(), machine).unwrap();
        state
            .set(
                disk,
                held(Content::At {
                    point: PointId::new(),
                }),
            )
            .unwrap();
        let path = state.path.clone();
        drop(state);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let state = StateFile::open(folder.path(), machine).unwrap();
            assert!(state.was_damaged, "{len} bytes");
            assert_eq!(state.content(disk), Content::Unknown);
        }
    }

    #[test]
    fn a_step_that_was_begun_is_ended_before_the_next() {
        let (a, b, c) = (PointId::new(), PointId::new(), PointId::new());
        let delta = Step::Delta { from: a, to: b };
        assert_eq!(Content::At { point: b }.step(b), Step::Nothing);
        assert_eq!(Content::At { point: a }.step(b), delta);
        assert_eq!(delta.under_way().unwrap().step(c), delta);
        let compare = Step::Compare {
            to: b,
            from_bytes: 65536,
        };
        assert_eq!(compare.under_way().unwrap().step(c), compare);
        let whole = Step::Compare { to: c, from_bytes: 0 };
        assert_eq!(Content::Unknown.step(c), whole);
        assert_eq!((delta.keep(), compare.keep()), (vec![a, b], vec![b]));
        for content in [
            Content::Unknown,
            delta.under_way().unwrap(),
            compare.under_way().unwrap(),
        ] {
            assert_eq!(content.holds(), None);
        }
    }

    #[test]
    fn another_disk_is_not_taken_for_the_known_one() {
        let known = held(Content::Unknown);
        let other = |change: fn(&mut Held)| {
            let mut other = known.clone();
            change(&mut other);
            known.is_same_disk(&other)
        };
        assert!(other(|disk| disk.device = "/dev/sdy".into()));
        assert!(!other(|disk| disk.stable_id = "wwn:2".into()));
        assert!(!other(|disk| disk.size_bytes += 512));
        let nameless = Held {
            stable_id: String::new(),
            ..known.clone()
        };
        let elsewhere = Held {
            device: "/dev/sdy".into(),
            ..nameless.clone()
        };
        assert!(!nameless.is_same_disk(&elsewhere) && nameless.is_same_disk(&nameless));
        let rebooted = Held {
            boot_id: "another".to_owned(),
            ..nameless.clone()
        };
        assert!(!nameless.is_same_disk(&rebooted));
    }

    #[test]
    fn what_is_written_on_a_disk_is_not_its_name() {
        let facts = |stable_id: &str| DiskFacts {
            stable_id: stable_id.to_owned(),
            size_bytes: 8192,
            ..DiskFacts::default()
        };
        let new = |stable_id: &str| Held::new(Path::new("/dev/vdb"), &facts(stable_id), Content::Unknown);
        // An empty disk that was received got the partition table of the original.
        assert!(new("").is_same_disk(&new("gpt:1")) && new("mbr:1").is_same_disk(&new("gpt:1")));
        assert!(!new("serial:1").is_same_disk(&new("serial:2")) && !new("").is_same_disk(&new("serial:1")));
    }
}
