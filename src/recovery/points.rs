//! Which recovery point a choice means. Pure.
use super::error::Refusal;
use super::request::PointChoice;
use crate::block::{Consistency, DiskId};
use crate::replica::RecoveryPoint;

/// Whether a machine with these disks can be started from the point. A fuzzy point is of no instant.
pub fn is_usable(point: &RecoveryPoint, disks: &[DiskId]) -> bool {
    point.consistency > Consistency::Fuzzy && disks.iter().all(|disk| point.disks.contains(disk))
}

/// `points`: oldest first, as the store gives them.
pub fn choose<'a>(
    points: &'a [RecoveryPoint],
    disks: &[DiskId],
    choice: PointChoice,
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
        PointChoice::LatestAppConsistent => Consistency::AppConsistent,
        _ => Consistency::CrashConsistent,
    };
    points
        .iter()
        .filter(|point| point.consistency >= least && is_usable(point, disks))
        .max_by_key(|point| point.instant_unix_nanos)
        .ok_or_else(|| {
            if least == Consistency::AppConsistent {
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
        let taken = |choice| choose(&points, &both, choice).map(|point| point.instant_unix_nanos);
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
        let refusal = choose(crash_only, &both, PointChoice::LatestAppConsistent).unwrap_err();
        assert_eq!(refusal.code, "NoAppConsistentPoint");
        let refusal = choose(&points[4..], &both, PointChoice::Latest).unwrap_err();
        assert_eq!(refusal.code, "NoRecoveryPoint");
        // One disk less to protect: the point with only that one is the newest.
        assert_eq!(
            choose(&points, &[a], PointChoice::Latest)
                .unwrap()
                .instant_unix_nanos,
            4
        );
    }
}
