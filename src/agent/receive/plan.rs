//! Which disk of the failed-over machine goes to which disk here.
use super::client::{Order, OrderKey, OrderedDisk};
use super::progress::{DiskNow, Progress};
use super::state::{Content, Held, StateFile};
use super::target::Target;
use super::{ReceiveError, ReceiveSettings};
use crate::agent::inventory;
use crate::block::DiskId;
use crate::wire::facts::DiskFacts;
use std::path::{Path, PathBuf};

/// `--disk NAME_OR_ID=PATH`, or only the path where it is clear which disk is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub name: Option<String>,
    pub path: PathBuf,
}

impl std::str::FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A path may hold the sign too: what begins with a slash is a path.
        let (name, path) = match text.split_once('=') {
            Some((name, path)) if !text.starts_with('/') => (Some(name), path),
            _ => (None, text),
        };
        if path.is_empty() || name.is_some_and(str::is_empty) {
            return Err("write it as NAME=PATH, with a name or id of a disk of the machine".to_owned());
        }
        Ok(Self {
            name: name.map(str::to_owned),
            path: PathBuf::from(path),
        })
    }
}

pub struct PlannedDisk {
    pub ordered: OrderedDisk,
    pub(super) target: Target,
    /// The original disk, or one that this receiver has written to before: overwriting it is what is meant.
    pub is_known: bool,
}

impl PlannedDisk {
    pub fn path(&self) -> &Path {
        self.target.path()
    }

    /// What is on it now.
    pub fn facts(&self) -> &DiskFacts {
        self.target.facts()
    }
}

/// Every disk with its target, each open for this receiver alone.
pub struct Plan {
    pub order: Order,
    pub disks: Vec<PlannedDisk>,
    state: StateFile,
}

/// What a step needs of the plan while it changes the state.
pub(super) struct Parts<'a> {
    pub key: OrderKey,
    pub id: DiskId,
    pub target: &'a Target,
}

impl Plan {
    pub(super) fn new(
        settings: &ReceiveSettings,
        order: Order,
        given: &[Given],
        offered: &[PathBuf],
    ) -> Result<Self, ReceiveError> {
        // Disks by what they call themselves; those that were offered for protection at the joining, or all that are found.
        let here = inventory::take(offered).disks;
        let paths = assign(&order, given, &here)?;
        let mut state = StateFile::open(&settings.state_dir, order.machine)?;
        let mut disks = Vec::new();
        for (ordered, path) in order.disks.iter().zip(paths) {
            let target = Target::open(&path, ordered.size_bytes)?;
            let facts = target.facts();
            let held = Held::new(&path, facts, Content::Unknown);
            let known = state.disk(ordered.id).filter(|known| known.is_same_disk(&held));
            let is_original = is_original(&order, ordered, facts);
            let content = match known {
                Some(known) if !settings.compare => known.content,
                _ => Content::Unknown,
            };
            let is_known = known.is_some() || is_original;
            // An unknown disk is written down only when it was confirmed: with its first step.
            if known.is_some() {
                state.set(ordered.id, Held { content, ..held })?;
            }
            disks.push(PlannedDisk {
                ordered: ordered.clone(),
                target,
                is_known,
            });
        }
        Ok(Self { order, disks, state })
    }

    /// The state file could not be read: everything is compared.
    pub fn state_was_damaged(&self) -> bool {
        self.state.was_damaged
    }

    /// For the progress of a run of this plan.
    pub fn progress(&self) -> Progress {
        let disk = |disk: &PlannedDisk| DiskNow {
            id: disk.ordered.id,
            name: disk.ordered.name.clone(),
            device: disk.path().to_owned(),
            size_bytes: disk.facts().size_bytes,
            holds: self.state.content(disk.ordered.id).holds(),
            keep: Vec::new(),
            done_bytes: 0,
            total_bytes: 0,
            copied_bytes: 0,
        };
        Progress::new(self.disks.iter().map(disk).collect())
    }

    pub(super) fn content(&self, index: usize) -> Content {
        self.state.content(self.disks[index].ordered.id)
    }

    /// Durable on return.
    pub(super) fn set_content(
        &mut self,
        index: usize,
        content: Content,
        progress: &Progress,
    ) -> Result<(), ReceiveError> {
        let disk = &self.disks[index];
        let held = Held::new(disk.path(), disk.facts(), content);
        if self.state.disk(disk.ordered.id) != Some(&held) {
            self.state.set(disk.ordered.id, held)?;
        }
        progress.change(|now| {
            if let Some(disk) = now.disks.get_mut(index) {
                disk.holds = content.holds();
                if disk.holds.is_some() {
                    disk.keep.clear();
                }
            }
        });
        Ok(())
    }

    pub(super) fn split(&mut self, index: usize) -> (Parts<'_>, &mut StateFile) {
        let disk = &self.disks[index];
        let parts = Parts {
            key: self.order.key(),
            id: disk.ordered.id,
            target: &disk.target,
        };
        (parts, &mut self.state)
    }

    /// A newer order for the same machine and disks.
    pub(super) fn renew_order(&mut self, order: Order) -> Result<(), ReceiveError> {
        let same = order.machine == self.order.machine
            && order.disks.len() == self.order.disks.len()
            && order
                .disks
                .iter()
                .zip(&self.order.disks)
                .all(|(new, old)| new.id == old.id && new.size_bytes == old.size_bytes);
        if !same {
            return Err(ReceiveError::OrderChanged(self.order.name.clone()));
        }
        self.order = order;
        Ok(())
    }
}

/// Whether this is the disk that the machine ran from before. On another machine nothing proves it: serial numbers of virtual
/// disks repeat, partition tables are cloned, and the name of a file says nothing.
fn is_original(order: &Order, ordered: &OrderedDisk, facts: &DiskFacts) -> bool {
    order.is_original && !facts.stable_id.is_empty() && facts.stable_id == ordered.stable_id
}

/// A path for each disk, in the order of the order.
fn assign(order: &Order, given: &[Given], here: &[DiskFacts]) -> Result<Vec<PathBuf>, ReceiveError> {
    let mut paths: Vec<Option<PathBuf>> = vec![None; order.disks.len()];
    let mut put = |index: usize, path: &Path| match &paths[index] {
        Some(_) => Err(ReceiveError::Disks(format!(
            "disk {} was given twice",
            order.disks[index].name
        ))),
        None => {
            paths[index] = Some(path.to_owned());
            Ok(())
        }
    };
    let find = |wanted: &str| {
        order
            .disks
            .iter()
            .position(|disk| disk.name == wanted || disk.stable_id == wanted || disk.id.to_string() == wanted)
    };
    for one in given {
        let index = match &one.name {
            Some(name) => find(name),
            None if order.disks.len() == 1 => Some(0),
            None => inventory::disk(&one.path).and_then(|facts| find(&facts.stable_id)),
        };
        let index = index.ok_or_else(|| {
            let what = one.name.clone().unwrap_or_else(|| one.path.display().to_string());
            ReceiveError::Disks(format!(
                "{what} is not a disk of {}; its disks: {}",
                order.name,
                listed(order)
            ))
        })?;
        put(index, &one.path)?;
    }
    for (index, disk) in order.disks.iter().enumerate() {
        if paths[index].is_none() && order.is_original && !disk.stable_id.is_empty() {
            let original = here.iter().find(|facts| facts.stable_id == disk.stable_id);
            paths[index] = original.map(|facts| PathBuf::from(&facts.device));
        }
    }
    let missing: Vec<&str> = (order.disks.iter().zip(&paths))
        .filter(|(_, path)| path.is_none())
        .map(|(disk, _)| disk.name.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(ReceiveError::Disks(format!(
            "no disk here was given for {}; the disks of {}: {}",
            missing.join(", "),
            order.name,
            listed(order)
        )));
    }
    let paths: Vec<PathBuf> = paths.into_iter().flatten().collect();
    for (index, path) in paths.iter().enumerate() {
        let real = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if paths[..index].iter().any(|other| real(other) == real(path)) {
            return Err(ReceiveError::Disks(format!(
                "{} was given for two disks",
                path.display()
            )));
        }
    }
    Ok(paths)
}

fn listed(order: &Order) -> String {
    let disk = |disk: &OrderedDisk| format!("{} ({} bytes, id {})", disk.name, disk.size_bytes, disk.id);
    order.disks.iter().map(disk).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MachineId;

    fn order(is_original: bool) -> Order {
        let disk = |name: &str, stable_id: &str| OrderedDisk {
            id: DiskId::new(),
            name: name.to_owned(),
            stable_id: stable_id.to_owned(),
            size_bytes: 4096,
        };
        Order {
            machine: MachineId::new(),
            name: "web1".to_owned(),
            generation: 1,
            disks: vec![disk("boot", "wwn:1"), disk("data", "backing:/x")],
            point: None,
            point_unix_nanos: 0,
            is_final: false,
            is_original,
        }
    }

    fn facts(device: &str, stable_id: &str) -> DiskFacts {
        DiskFacts {
            stable_id: stable_id.to_owned(),
            device: device.to_owned(),
            ..DiskFacts::default()
        }
    }

    fn given(text: &str) -> Given {
        text.parse().unwrap()
    }

    #[test]
    fn disks_are_given_by_name_id_or_stable_id_and_originals_are_found() {
        let order = order(true);
        let here = [facts("/dev/sda", "wwn:1"), facts("/dev/sdb", "backing:/x")];
        let paths = |given: &[Given]| assign(&order, given, &here).unwrap();
        assert_eq!(paths(&[]), [Path::new("/dev/sda"), Path::new("/dev/sdb")]);
        for name in ["data", "backing:/x", &order.disks[1].id.to_string()] {
            assert_eq!(
                paths(&[given(&format!("{name}=/dev/sdz"))]),
                [Path::new("/dev/sda"), Path::new("/dev/sdz")]
            );
        }
        let wrong: [&[Given]; 4] = [
            &[given("other=/dev/sdz")],
            &[given("boot=/dev/sdz"), given("boot=/dev/sdy")],
            &[given("boot=/dev/sdz"), given("data=/dev/sdz")],
            // Not clear which one of two is meant.
            &[given("/dev/sdz")],
        ];
        for given in wrong {
            assert!(
                matches!(assign(&order, given, &here), Err(ReceiveError::Disks(_))),
                "{given:?}"
            );
        }
        assert!(assign(&order, &[], &here[..1]).is_err());
    }

    #[test]
    fn only_what_is_known_to_be_the_original_is_taken_for_it() {
        let (own, other) = (order(true), order(false));
        let (wwn, file) = (facts("/dev/sda", "wwn:1"), facts("/dev/loop0", "backing:/x"));
        assert!(is_original(&own, &own.disks[0], &wwn) && is_original(&own, &own.disks[1], &file));
        // Virtual disks of two machines may call themselves the same.
        assert!(!is_original(&other, &other.disks[0], &wwn) && !is_original(&other, &other.disks[1], &file));
        assert!(!is_original(&own, &own.disks[0], &facts("/dev/sda", "wwn:2")));
        assert!(
            assign(&other, &[], &[wwn, file]).is_err(),
            "taken without being named"
        );
    }

    #[test]
    fn a_name_stands_before_the_first_sign() {
        let both = |text: &str| text.parse::<Given>().map(|given| (given.name, given.path));
        assert_eq!(
            both("boot=/dev/a=b"),
            Ok((Some("boot".to_owned()), "/dev/a=b".into()))
        );
        assert_eq!(both("/dev/a=b"), Ok((None, "/dev/a=b".into())));
        assert!(both("=/dev/a").is_err() && both("boot=").is_err());
    }
}
