//! Which recovery point a choice means. Pure.
use super::error::Refusal;
use super::request::PointChoice;
use crate::block::{Consistency, DiskId, GroupPointId, MachineId};
use crate::replica::RecoveryPoint;
use std::collections::HashMap;

/// Whether a machine with these disks can be started from the point. A fuzzy point is of no instant.
pub fn is_usable(point: &RecoveryPoint, disks: &[DiskId]) -> bool {
    point.consistency > Consistency::Fuzzy && disks.iter().all(|disk| point.disks.contains(disk))
}

/// Instants that all machines of a group hold, as [`Store::shared_points`](crate::replica::Store::shared_points) gives them.
pub type SharedInstants = HashMap<GroupPointId, Consistency>;

/// `points`: oldest first, as the store gives them.
pub fn choose<'a>(
    points: &'a [RecoveryPoint],
    disks: &[DiskId],
    choice: PointChoice,
    shared: &SharedInstants,
) -> Result<&'a RecoveryPoint, Refusal> {
    if let PointChoice::Custom(id) = choice {
        let point = points.iter().find(|point| point.id == id).ok_or_else(|| {
            Refusal::new(
                "NoSuchPoint",
                format!("The recovery point {id} does not exist."),
                "Retention has removed it, or it belongs to another machine.",
                "Choose one of the recovery points that are listed for the machine now.",
            )
        })?;
        if !is_usable(point, disks) {
            let why = if point.consistency > Consistency::Fuzzy {
                "does not hold all protected disks"
            } else {
                "is fuzzy: its blocks are not of one instant"
            };
            return Err(Refusal::new(
                "PointNotUsable",
                format!("The recovery point {id} {why}."),
                "A disk was added after the point, or the disks never came to rest while it was made.",
                "Choose another recovery point.",
            ));
        }
        return Ok(point);
    }
    let least = match choice {
        PointChoice::LatestAppConsistent | PointChoice::LatestMultiVmAppConsistent => {
            Consistency::AppConsistent
        }
        _ => Consistency::CrashConsistent,
    };
    let multi_vm = matches!(
        choice,
        PointChoice::LatestMultiVm | PointChoice::LatestMultiVmAppConsistent
    );
    // What the least of the group's points is called counts for all of them.
    let is_shared = |point: &RecoveryPoint| {
        let least_of_all = point.shared.and_then(|mark| shared.get(&mark.id));
        least_of_all.is_some_and(|of_all| *of_all >= least)
    };
    points
        .iter()
        .filter(|point| point.consistency >= least && is_usable(point, disks))
        .filter(|point| !multi_vm || is_shared(point))
        .max_by_key(|point| point.instant_unix_nanos)
        .ok_or_else(|| {
            if multi_vm {
                Refusal::new(
                    "NoSharedPoint",
                    "There is no recovery point that the machines of a replication group share.",
                    "The machine is in no group, a member of it could not take part in a point, or retention has removed the point of one of them.",
                    "Choose a point of the machine alone, or wait for the next shared one; the health errors say why there is none.",
                )
            } else if least == Consistency::AppConsistent {
                Refusal::new(
                    "NoAppConsistentPoint",
                    "There is no app-consistent recovery point.",
                    "The policy has them off, or the scripts that bring applications to rest failed.",
                    "Choose a crash-consistent point, or wait for the next app-consistent one.",
                )
            } else {
                Refusal::new(
                    "NoRecoveryPoint",
                    "There is no recovery point to start from.",
                    "No consistent point of all protected disks was made yet.",
                    "Wait for the next recovery point; the health errors of the machine say why there is none.",
                )
            }
        })
}

/// What is known of one machine of a plan.
pub struct Candidate {
    pub machine: MachineId,
    pub disks: Vec<DiskId>,
    pub points: Vec<RecoveryPoint>,
}

/// The choice of every machine of a plan when a point that machines share is wanted: the newest instant that all of them
/// that hold it can be started from. Chosen once, because between the turns of two machines a newer one is made. A machine
/// that shares no point takes its own latest.
///
/// `shared` is read before the points are: what it names, all members had sealed by then.
pub fn pin(
    candidates: &[Candidate],
    choice: PointChoice,
    shared: &SharedInstants,
) -> Result<Vec<(MachineId, PointChoice)>, Refusal> {
    let least = match choice {
        PointChoice::LatestMultiVm => Consistency::CrashConsistent,
        PointChoice::LatestMultiVmAppConsistent => Consistency::AppConsistent,
        _ => return Ok(Vec::new()),
    };
    let mut good = shared.clone();
    good.retain(|_, of_all| *of_all >= least);
    for candidate in candidates {
        for point in &candidate.points {
            if let Some(mark) = point.shared.filter(|_| !is_usable(point, &candidate.disks)) {
                good.remove(&mark.id);
            }
        }
    }
    let of = |candidate: &Candidate| {
        let held = candidate.points.iter();
        held.filter(|point| point.shared.is_some_and(|mark| good.contains_key(&mark.id)))
            .max_by_key(|point| point.instant_unix_nanos)
            .map(|point| PointChoice::Custom(point.id))
    };
    let mut any = false;
    let mut pinned = Vec::new();
    for candidate in candidates {
        let found = of(candidate);
        any |= found.is_some();
        let own = match least {
            Consistency::AppConsistent => PointChoice::LatestAppConsistent,
            _ => PointChoice::LatestProcessed,
        };
        pinned.push((candidate.machine, found.unwrap_or(own)));
    }
    if any {
        return Ok(pinned);
    }
    Err(Refusal::new(
        "NoSharedPoint",
        "There is no recovery point that the machines of a replication group share.",
        "No machine of the plan is in a group, a member of it could not take part in a point, or retention has removed the point of one of them.",
        "Choose points of the machines alone, or wait for the next shared one; the health errors say why there is none.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MachineId, PointId};

    fn point(instant: i64, consistency: Consistency, disks: &[DiskId]) -> RecoveryPoint {
        RecoveryPoint {
            id: PointId::new(),
            machine: MachineId::new(),
            instant_unix_nanos: instant,
            consistency,
            note: String::new(),
            freeze_micros: 0,
            disks: disks.to_vec(),
            stored_bytes: 0,
            shared: None,
        }
    }

    #[test]
    fn each_choice_takes_its_point() {
        let (a, b) = (DiskId::new(), DiskId::new());
        let both = [a, b];
        let points = [
            point(1, Consistency::CrashConsistent, &both),
            point(2, Consistency::AppConsistent, &both),
            point(3, Consistency::CrashConsistent, &both),
            point(4, Consistency::CrashConsistent, &[a]),
            point(5, Consistency::Fuzzy, &both),
        ];
        let taken = |choice| {
            choose(&points, &both, choice, &SharedInstants::new()).map(|point| point.instant_unix_nanos)
        };
        let code = |choice| taken(choice).unwrap_err().code;
        assert_eq!(taken(PointChoice::Latest).unwrap(), 3);
        assert_eq!(taken(PointChoice::LatestProcessed).unwrap(), 3);
        assert_eq!(taken(PointChoice::LatestCrashConsistent).unwrap(), 3);
        assert_eq!(taken(PointChoice::LatestAppConsistent).unwrap(), 2);
        assert_eq!(taken(PointChoice::Custom(points[0].id)).unwrap(), 1);
        assert_eq!(code(PointChoice::Custom(points[3].id)), "PointNotUsable");
        assert_eq!(code(PointChoice::Custom(points[4].id)), "PointNotUsable");
        assert_eq!(code(PointChoice::Custom(PointId::new())), "NoSuchPoint");
        let crash_only = &points[..1];
        let refusal = choose(
            crash_only,
            &both,
            PointChoice::LatestAppConsistent,
            &SharedInstants::new(),
        )
        .unwrap_err();
        assert_eq!(refusal.code, "NoAppConsistentPoint");
        let refusal = choose(&points[4..], &both, PointChoice::Latest, &SharedInstants::new()).unwrap_err();
        assert_eq!(refusal.code, "NoRecoveryPoint");
        // One disk less to protect: the point with only that one is the newest.
        assert_eq!(
            choose(&points, &[a], PointChoice::Latest, &SharedInstants::new())
                .unwrap()
                .instant_unix_nanos,
            4
        );
    }

    #[test]
    fn only_what_all_of_a_group_hold_is_shared() {
        let disk = DiskId::new();
        let ids = [GroupPointId::new(), GroupPointId::new(), GroupPointId::new()];
        let marked = |instant, consistency, id: Option<GroupPointId>| RecoveryPoint {
            shared: id.map(|id| crate::replica::SharedMark { id, members: 2 }),
            ..point(instant, consistency, &[disk])
        };
        let points = [
            marked(1, Consistency::AppConsistent, Some(ids[0])),
            marked(2, Consistency::AppConsistent, Some(ids[1])),
            // Another member did not seal it.
            marked(3, Consistency::AppConsistent, Some(ids[2])),
            marked(4, Consistency::AppConsistent, None),
        ];
        // At the second instant another member's applications were not at rest.
        let shared = SharedInstants::from([
            (ids[0], Consistency::AppConsistent),
            (ids[1], Consistency::CrashConsistent),
        ]);
        let taken = |choice, shared: &SharedInstants| {
            choose(&points, &[disk], choice, shared).map(|point| point.instant_unix_nanos)
        };
        assert_eq!(taken(PointChoice::LatestMultiVm, &shared).unwrap(), 2);
        assert_eq!(
            taken(PointChoice::LatestMultiVmAppConsistent, &shared).unwrap(),
            1
        );
        assert_eq!(taken(PointChoice::LatestAppConsistent, &shared).unwrap(), 4);
        let refusal = taken(PointChoice::LatestMultiVm, &SharedInstants::new()).unwrap_err();
        assert_eq!(refusal.code, "NoSharedPoint");
    }

    #[test]
    fn machines_of_a_plan_are_pinned_to_one_instant() {
        let disk = DiskId::new();
        let ids = [GroupPointId::new(), GroupPointId::new(), GroupPointId::new()];
        let marked = |instant, id: Option<GroupPointId>| RecoveryPoint {
            shared: id.map(|id| crate::replica::SharedMark { id, members: 2 }),
            ..point(instant, Consistency::CrashConsistent, &[disk])
        };
        let of = |points: Vec<RecoveryPoint>| Candidate {
            machine: MachineId::new(),
            disks: vec![disk],
            points,
        };
        let group = |newest: RecoveryPoint| {
            let all = |last| vec![marked(1, Some(ids[0])), marked(2, Some(ids[1])), last];
            [
                of(all(marked(3, Some(ids[2])))),
                of(all(newest)),
                of(vec![marked(4, None)]),
            ]
        };
        let instants = |machines: &[Candidate], shared: &SharedInstants| {
            pin(machines, PointChoice::LatestMultiVm, shared).map(|pinned| {
                let instant = |(candidate, (machine, choice)): (&Candidate, (MachineId, PointChoice))| {
                    assert_eq!(candidate.machine, machine);
                    let id = match choice {
                        PointChoice::Custom(id) => id,
                        other => {
                            assert_eq!(other, PointChoice::LatestProcessed);
                            return 0;
                        }
                    };
                    let point = candidate.points.iter().find(|point| point.id == id);
                    point.unwrap().instant_unix_nanos
                };
                machines.iter().zip(pinned).map(instant).collect::<Vec<_>>()
            })
        };
        let crash = |of: &[usize]| -> SharedInstants {
            of.iter()
                .map(|place| (ids[*place], Consistency::CrashConsistent))
                .collect()
        };
        let machines = group(marked(3, Some(ids[2])));
        assert_eq!(instants(&machines, &crash(&[0, 1, 2])).unwrap(), [3, 3, 0]);
        // Only one of them has sealed the newest by now.
        assert_eq!(instants(&machines, &crash(&[0, 1])).unwrap(), [2, 2, 0]);
        // One of them could not be started from it: none of them is.
        let broken = RecoveryPoint {
            disks: Vec::new(),
            ..marked(3, Some(ids[2]))
        };
        assert_eq!(instants(&group(broken), &crash(&[0, 1, 2])).unwrap(), [2, 2, 0]);
        assert_eq!(
            instants(&machines, &crash(&[])).unwrap_err().code,
            "NoSharedPoint"
        );
        let app = pin(
            &machines,
            PointChoice::LatestMultiVmAppConsistent,
            &crash(&[0, 1, 2]),
        );
        assert_eq!(app.unwrap_err().code, "NoSharedPoint");
        assert_eq!(pin(&machines, PointChoice::Latest, &crash(&[])).unwrap(), []);
    }
}
