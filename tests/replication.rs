//! The way of the block over the network: a machine is protected and ships; cut links, killed agents and a server that comes
//! and goes lose nothing that was acknowledged.
mod support;
use lifeboat::block::{Consistency, MachineId};
use lifeboat::export::to_raw;
use lifeboat::recovery::{JobState, Journal, ProtectionState};
use lifeboat::replica::At;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use support::network::{Site, wait_for};
use support::{LoopDisk, Mounted, lacks_root, ok, umount};

/// Writes that are on the medium on return.
fn scribble(disk: &Path, seed: u8) {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let file = std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_SYNC)
        .open(disk)
        .unwrap();
    let mut buffer = lifeboat::agent::capture::AlignedBuffer::new(64 << 10).unwrap();
    for part in 0..20u64 {
        buffer.fill(seed.wrapping_add(part as u8));
        let at = (u64::from(seed) * 7919 + part * 104_729) % 500 * (64 << 10);
        file.write_all_at(&buffer, at).unwrap();
    }
}

#[test]
fn what_is_written_arrives_whatever_comes_and_goes() {
    if lacks_root() {
        return;
    }
    let mut site = Site::new();
    let file = site.folder.path().join("disk");
    let disk = LoopDisk::attach(&file, 32 << 20);
    scribble(&disk.0, 1);
    let identity = site.join(&site.spec("web1", &disk.0)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let agent = site.agent("web1");
    site.protect(machine);
    site.check(machine, &disk.0);

    // A delta.
    scribble(&disk.0, 2);
    site.next_point(machine);
    site.check(machine, &disk.0);

    // The server goes and comes back; meanwhile the disk changes.
    site.stop();
    scribble(&disk.0, 3);
    site.start();
    site.next_point(machine);
    site.check(machine, &disk.0);

    // The agent goes and comes back; meanwhile the disk changes.
    drop(agent);
    scribble(&disk.0, 4);
    let agent = site.agent("web1");
    site.next_point(machine);
    site.check(machine, &disk.0);

    // An order to resynchronize finds nothing to ship.
    let job = site.server().vault.resynchronize(machine, "test", None).unwrap();
    wait_for("the end of the comparison", || {
        let job = site.server().vault.job(job).unwrap();
        (job.state == JobState::Succeeded).then_some(())
    });
    site.check(machine, &disk.0);

    // Disabling removes the replica and ends the tracking.
    let disk_id = site.server().vault.item(machine).unwrap().disks[0];
    site.server().vault.disable(machine, "test").unwrap();
    wait_for("the replica to go", || {
        (site.server().vault.item(machine).is_err() && site.points(machine) == 0).then_some(())
    });
    let pins = Path::new("/sys/fs/bpf/lifeboat").join(disk_id.to_string());
    wait_for("the tracking to end", || (!pins.exists()).then_some(()));
    drop(agent);
    ok("sync", &[]);
}

#[test]
fn a_store_that_lost_what_it_acknowledged_is_noticed() {
    if lacks_root() {
        return;
    }
    let mut site = Site::new();
    let disk = LoopDisk::attach(&site.folder.path().join("disk"), 32 << 20);
    scribble(&disk.0, 1);
    let identity = site.join(&site.spec("web1", &disk.0)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let _agent = site.agent("web1");
    site.protect(machine);
    let (store, copy) = (
        site.folder.path().join("data/store"),
        site.folder.path().join("copy"),
    );
    site.stop();
    ok("cp", &["-a", store.to_str().unwrap(), copy.to_str().unwrap()]);
    site.start();
    scribble(&disk.0, 2);
    site.next_point(machine);
    // The site's folder comes back from yesterday's backup: the agent's bits of what was shipped since are gone.
    site.stop();
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&copy, &store).unwrap();
    site.start();
    site.next_point(machine);
    site.check(machine, &disk.0);
}

#[test]
fn a_full_store_holds_replication_back_and_loses_nothing() {
    if lacks_root() {
        return;
    }
    let site = Site::on(Some("size=24m"));
    let store = site.folder.path().join("data/store");
    let file = site.folder.path().join("disk");
    let disk = LoopDisk::attach(&file, 32 << 20);
    // Does not compress: 40 MiB do not fit into 24 MiB.
    let args = [
        "if=/dev/urandom",
        &format!("of={}", disk.path()),
        "bs=1M",
        "count=32",
        "oflag=direct",
    ];
    ok("dd", &args);
    let identity = site.join(&site.spec("web1", &disk.0)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let _agent = site.agent("web1");
    let vault = &site.server().vault;
    wait_for("an inventory", || vault.machine(machine).ok()?.inventory);
    vault.enable(machine, "default", None, None, "test").unwrap();
    wait_for("the alert", || vault.live(machine).store_full);
    wait_for("the health error", || {
        let health = vault.health(&vault.item_row(machine).ok()?);
        health
            .errors
            .iter()
            .any(|error| error.code == "StoreFull")
            .then_some(())
    });
    assert_eq!(site.points(machine), 0);
    ok("mount", &["-o", "remount,size=128m", store.to_str().unwrap()]);
    wait_for("protection", || {
        let state = vault.item(machine).ok()?.protection;
        (state == ProtectionState::Protected).then_some(())
    });
    assert_eq!(vault.live(machine).store_full, None);
    site.check(machine, &disk.0);
}

/// A message is on disk A before it is on disk B. No point may hold it on B only.
#[test]
fn all_disks_of_a_machine_are_of_one_instant() {
    if lacks_root() {
        return;
    }
    let site = Site::new();
    let folder = site.folder.path().to_owned();
    let disks = ["a", "b"].map(|name| LoopDisk::attach(&folder.join(name), 24 << 20));
    let mounts = [0, 1].map(|index| {
        ok("mkfs.ext4", &["-q", disks[index].path()]);
        Mounted::new(disks[index].path(), &folder.join(format!("mnt{index}")), "rw")
    });
    let mut spec = site.spec("web1", &disks[0].0);
    spec.disks.push(disks[1].0.clone());
    let machine: MachineId = site.join(&spec).unwrap().machine_id.parse().unwrap();
    let _agent = site.agent("web1");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1u64.. {
                for mount in &mounts {
                    let file = File::options()
                        .create(true)
                        .truncate(false)
                        .write(true)
                        .open(mount.0.join("message"))
                        .unwrap();
                    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
                    file.sync_data().unwrap();
                }
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let _end = End(&stop);
        site.protect(machine);
        for _ in 0..10 {
            site.next_point(machine);
        }
    });
    let store = &site.server().store;
    let mut seen = 0;
    for point in store.points(machine).unwrap() {
        assert_eq!(point.consistency, Consistency::CrashConsistent, "{}", point.note);
        let numbers = [0, 1].map(|index| {
            let id = site.server().vault.item(machine).unwrap().disks[index];
            let image = store.image(machine, id, At::Point(point.id)).unwrap();
            let raw = folder.join("raw");
            to_raw(&image, &raw, &mut |_, _| ()).unwrap();
            let copy = LoopDisk::attach(&raw, 0);
            let number = {
                let mounted = Mounted::new(copy.path(), &folder.join("check"), "rw");
                let bytes = std::fs::read(mounted.0.join("message")).unwrap_or_default();
                let number = bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
                umount(&mounted.0);
                std::mem::forget(mounted);
                number
            };
            std::fs::remove_file(raw).unwrap();
            number
        });
        let [a, b] = numbers;
        assert!(a == b || a == b + 1, "point {}: {a} on A, {b} on B", point.id);
        seen = seen.max(a);
    }
    assert!(seen > 10, "hardly anything was written");
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
