//! Orders on a machine that is being replicated, with a real server and a real agent: resynchronize as a job, another
//! policy, disks that are included and excluded.
mod support;
use lifeboat::agent::join::JoinSpec;
use lifeboat::block::MachineId;
use lifeboat::recovery::{JobId, JobState, Journal};
use lifeboat::vault::{Desired, NewPolicy};
use std::path::PathBuf;
use std::time::Instant;
use support::network::{Site, wait_for};

/// Bytes that do not compress to nothing.
fn fill(path: &std::path::Path, seed: u64, mib: u64) {
    let mut state = seed;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take((mib << 20) as usize)
    .collect();
    std::fs::write(path, bytes).unwrap();
}

struct Machine {
    site: Site,
    id: MachineId,
    disks: Vec<PathBuf>,
}

/// A machine of two disks, of which the first is protected.
fn machine() -> (Machine, support::network::Agent) {
    let site = Site::new();
    let disks = vec![
        site.folder.path().join("boot.img"),
        site.folder.path().join("data.img"),
    ];
    fill(&disks[0], 1, 4);
    fill(&disks[1], 2, 4);
    let spec = JoinSpec {
        disks: disks.clone(),
        ..site.spec("web1", &disks[0])
    };
    let id = site.join(&spec).unwrap().machine_id.parse().unwrap();
    let agent = site.agent("web1");
    let machine = Machine { site, id, disks };
    let vault = &machine.site.server().vault;
    let inventory = wait_for("an inventory", || vault.machine(id).ok()?.inventory);
    assert_eq!(inventory.disks.len(), 2);
    let first = machine.stable_id(0);
    vault
        .enable(id, "default", Some(vec![first]), None, "test")
        .unwrap();
    wait_for("protection", || {
        let state = vault.item(id).ok()?.protection;
        (state == lifeboat::recovery::ProtectionState::Protected).then_some(())
    });
    (machine, agent)
}

impl Machine {
    fn stable_id(&self, number: usize) -> String {
        let inventory = self
            .site
            .server()
            .vault
            .machine(self.id)
            .unwrap()
            .inventory
            .unwrap();
        let device = self.disks[number].to_str().unwrap();
        let disk = inventory.disks.iter().find(|disk| disk.device == device);
        disk.unwrap_or_else(|| panic!("{device}: {:?}", inventory.disks))
            .stable_id
            .clone()
    }

    fn desired(&self) -> Desired {
        self.site.server().vault.desired(self.id).unwrap()
    }

    fn succeeds(&self, job: JobId) {
        let job = wait_for("the job to end", || {
            let job = self.site.server().vault.job(job).unwrap();
            job.state.is_over().then_some(job)
        });
        assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    }
}

#[test]
fn a_comparison_is_a_job_that_ends_when_the_agent_says_so() {
    let (machine, agent) = machine();
    let vault = &machine.site.server().vault;
    let job = vault.resynchronize(machine.id, "test", None).unwrap();
    let twice = vault.resynchronize(machine.id, "test", None).unwrap_err();
    assert!(twice.to_string().contains("already"), "{twice}");
    machine.succeeds(job);
    assert_eq!(
        vault.live(machine.id).heartbeat.unwrap().resync_done,
        machine.desired().resync_request
    );
    // An agent that is away takes the order when it is back; one that was started anew still knows what it did.
    drop(agent);
    let job = vault.resynchronize(machine.id, "test", None).unwrap();
    let _agent = machine.site.agent("web1");
    machine.succeeds(job);
    // Whoever loses protection meanwhile has nothing to wait for.
    let job = vault.resynchronize(machine.id, "test", None).unwrap();
    vault.disable(machine.id, "test").unwrap();
    wait_for("the job to end", || {
        vault.job(job).unwrap().state.is_over().then_some(())
    });
}

#[test]
fn a_shorter_interval_counts_at_once() {
    let (machine, _agent) = machine();
    let vault = &machine.site.server().vault;
    let mut policy = NewPolicy::named("slow");
    policy.crash_consistent_seconds = 3600;
    policy.rpo_threshold_seconds = 7200;
    vault.create_policy("default", &policy).unwrap();
    vault.set_policy(machine.id, "slow", None).unwrap();
    // The agent has heard of it when it has made a point and then none at the default interval: told by its own orders.
    let before = machine.site.points(machine.id);
    machine.site.next_point(machine.id);
    assert!(machine.site.points(machine.id) > before);
    policy.crash_consistent_seconds = 5;
    let begin = Instant::now();
    vault.update_policy("default", &policy, None).unwrap();
    let before = machine.site.points(machine.id);
    wait_for("points every five seconds", || {
        (machine.site.points(machine.id) > before).then_some(())
    });
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}

#[test]
fn disks_come_and_go_while_the_machine_is_protected() {
    let (machine, _agent) = machine();
    let vault = &machine.site.server().vault;
    let (boot, data) = (machine.stable_id(0), machine.stable_id(1));
    let old = machine
        .site
        .server()
        .store
        .points(machine.id)
        .unwrap()
        .pop()
        .unwrap();
    let job = vault
        .set_disks(machine.id, &[boot.clone(), data.clone()], None, "test", None)
        .unwrap();
    machine.succeeds(job);
    let item = vault.item(machine.id).unwrap();
    assert_eq!(item.disks.len(), 2);
    let newest = || {
        machine
            .site
            .server()
            .store
            .points(machine.id)
            .unwrap()
            .pop()
            .unwrap()
    };
    let both = newest();
    assert!(item.disks.iter().all(|disk| both.disks.contains(disk)));
    assert!(!item.disks.iter().all(|disk| old.disks.contains(disk)));
    // Both are what the disks hold.
    for (disk, file) in item.disks.iter().zip(&machine.disks) {
        let store = &machine.site.server().store;
        let image = store
            .image(machine.id, *disk, lifeboat::replica::At::Point(both.id))
            .unwrap();
        let raw = machine.site.folder.path().join("raw");
        lifeboat::export::to_raw(&image, &raw, &mut |_, _| ()).unwrap();
        assert!(std::fs::read(&raw).unwrap() == std::fs::read(file).unwrap());
        std::fs::remove_file(&raw).unwrap();
    }
    let job = vault.set_disks(machine.id, &[boot], None, "test", None).unwrap();
    machine.succeeds(job);
    assert_eq!(vault.item(machine.id).unwrap().disks, item.disks[..1]);
    machine.site.next_point(machine.id);
    assert_eq!(
        newest().disks,
        item.disks[..1],
        "the excluded disk leaves later points"
    );
    let kept = machine.site.server().store.points(machine.id).unwrap();
    assert!(
        kept.iter().any(|point| point.disks.len() == 2),
        "the older ones keep it"
    );
}
