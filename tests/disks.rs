//! A disk grows, is taken away, and is exchanged while it is replicated: it is noticed and explained, no point made in between is
//! wrong, and what the advice says works.
#[path = "support/serve.rs"]
mod serve;
mod support;
use lifeboat::replica::{At, RecoveryPoint, Store, VaultKey};
use serde_json::Value;
use serve::{LIFEBOAT, Site};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{LoopDisk, Mounted, lacks_root, ok, wait_for};

/// A disk under a name of its own, as udev gives names: so that it can be taken away while it is in use.
struct Disk {
    node: PathBuf,
    image: PathBuf,
    mounted: Option<Mounted>,
    device: LoopDisk,
}

impl Disk {
    fn new(folder: &Path, name: &str, mib: u64) -> Self {
        let image = folder.join(format!("{name}.img"));
        let device = LoopDisk::attach(&image, mib << 20);
        ok("mkfs.ext4", &["-q", device.path()]);
        let mounted = Mounted::new(device.path(), &folder.join(name), "noatime");
        let disk = Self {
            node: folder.join(format!("{name}.node")),
            image,
            mounted: Some(mounted),
            device,
        };
        disk.appear();
        disk
    }

    fn appear(&self) {
        let number = std::fs::metadata(&self.device.0).unwrap().rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let node = self.node.to_str().unwrap();
        ok("mknod", &[node, "b", &major.to_string(), &minor.to_string()]);
    }

    fn vanish(&self) {
        std::fs::remove_file(&self.node).unwrap();
    }

    fn stable_id(&self) -> String {
        format!("backing:{}", self.image.display())
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.mounted.as_ref().unwrap().0.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
    }

    /// The disk, and the file system on it: not while it is mounted, which takes a right that containers lack.
    fn grow(&mut self, mib: u64) {
        std::fs::File::options()
            .write(true)
            .open(&self.image)
            .unwrap()
            .set_len(mib << 20)
            .unwrap();
        ok("losetup", &["-c", self.device.path()]);
        let before = self.mounted.take().unwrap();
        let point = before.0.clone();
        support::umount(&point);
        // There is nothing left for it to unmount.
        std::mem::forget(before);
        ok("e2fsck", &["-fy", self.device.path()]);
        ok("resize2fs", &[self.device.path()]);
        self.mounted = Some(Mounted::new(self.device.path(), &point, "noatime"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.mounted = None;
    }
}

struct Bed {
    site: Site,
    agent: Child,
    disks: Vec<Disk>,
    folder: tempfile::TempDir,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let text = std::fs::read_to_string(self.folder.path().join("agent/kept.json")).unwrap_or_default();
        let kept: Value = serde_json::from_str(&text).unwrap_or_default();
        for disk in kept["tracked"].as_array().into_iter().flatten() {
            if let Some(Ok(disk)) = disk.as_str().map(str::parse) {
                lifeboat::agent::capture::forget(disk);
            }
        }
    }
}

impl Bed {
    /// A machine with two disks that is protected.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disks = vec![
            Disk::new(folder.path(), "system", 24),
            Disk::new(folder.path(), "data", 32),
        ];
        let site = Site::start();
        let state = folder.path().join("agent");
        let nodes: Vec<&Path> = disks.iter().map(|disk| disk.node.as_ref()).collect();
        site.join("web1", &state, &nodes);
        let agent = Command::new(LIFEBOAT)
            .args(["agent", "run", "--state-dir"])
            .arg(&state)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bed = Self {
            site,
            agent,
            disks,
            folder,
        };
        wait_for("an inventory of both disks", || {
            (bed.machine()["machine"]["disks"].as_array()?.len() == 2).then_some(())
        });
        bed.site.quick_policy("5");
        bed.site.cli(&["protect", "web1", "--policy", "quick", "--wait"]);
        bed.next_point();
        bed
    }

    fn machine(&self) -> Value {
        self.site.cli(&["machine", "show", "web1"])
    }

    fn points(&self) -> Vec<Value> {
        let list = self
            .site
            .cli(&["recovery-point", "list", "web1", "--limit", "1000"]);
        list["items"].as_array().unwrap().clone()
    }

    /// One that was begun after now: the first that comes may have been under way.
    fn next_point(&self) {
        for _ in 0..2 {
            let known = self.points().len();
            self.site.cli(&["recovery-point", "create", "web1"]);
            wait_for("a recovery point", || (self.points().len() > known).then_some(()));
        }
    }

    fn error(&self, code: &str) -> Option<Value> {
        let machine = self.machine();
        let errors = machine["replicatedItem"]["healthErrors"].as_array()?;
        errors.iter().find(|error| error["code"] == code).cloned()
    }

    /// Said with causes and an action; its message. The next point is due in seconds; this one is ordered, so that it is now.
    fn said(&self, code: &str) -> String {
        self.site.cli(&["recovery-point", "create", "web1", "--no-wait"]);
        let error = wait_for(code, || self.error(code));
        for text in ["possibleCauses", "recommendedAction"] {
            assert!(
                error[text].as_str().is_some_and(|text| text.len() > 10),
                "{error}"
            );
        }
        error["message"].as_str().unwrap().to_owned()
    }

    fn over(&self, code: &str) {
        wait_for("the end of the health error", || {
            self.error(code).is_none().then_some(())
        });
    }

    fn set_disks(&self, wanted: &[String]) {
        let mut args = vec!["machine", "set-disks", "web1"];
        args.extend(wanted.iter().flat_map(|disk| ["--disk", disk.as_str()]));
        self.site.cli(&args);
    }

    /// Each point's disks, read from the store beside the server: a file system that is whole, of the size that the disk has.
    fn assert_points_are_whole(&self) -> usize {
        let key = VaultKey::load(&self.site.data.join("pki/vault.key")).unwrap();
        let store = Store::open_read_only(&self.site.data.join("store"), &key).unwrap();
        let machine = store.machines()[0].id;
        let points = store.points(machine).unwrap();
        let file = self.folder.path().join("restored");
        for point in &points {
            for disk in &point.disks {
                restore(&store, machine, point, *disk, &file);
                // A journal that is to be replayed is as after a power cut; a size that does not fit is not.
                let output = Command::new("e2fsck").arg("-fy").arg(&file).output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    output.status.code() <= Some(1) && !text.contains("physical size"),
                    "{point:?} {disk}: {text}"
                );
            }
        }
        points.len()
    }
}

fn restore(
    store: &Store,
    machine: lifeboat::block::MachineId,
    point: &RecoveryPoint,
    disk: lifeboat::block::DiskId,
    file: &Path,
) {
    let image = store.image(machine, disk, At::Point(point.id)).unwrap();
    let mut bytes = vec![0; usize::try_from(image.size_bytes()).unwrap()];
    image.read_at(0, &mut bytes).unwrap();
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_disk_that_grows_is_noticed_and_taken_in_anew() {
    if lacks_root() {
        return;
    }
    let mut bed = Bed::new();
    let both: Vec<String> = bed.disks.iter().map(Disk::stable_id).collect();
    bed.disks[1].write("before", b"before");
    bed.next_point();
    let known = bed.points();
    bed.disks[1].grow(64);
    bed.disks[1].write("after", &support::noise(20 << 20, 1));
    let message = bed.said("DiskSizeChanged");
    assert!(
        message.contains(&(64 << 20).to_string()) && message.contains(&(32 << 20).to_string()),
        "{message}"
    );
    // The advice; both grow, the one that the machine boots from too.
    bed.disks[0].grow(40);
    wait_for("an inventory with the sizes of now", || {
        let machine = bed.machine();
        let sizes: Vec<_> = machine["machine"]["disks"]
            .as_array()?
            .iter()
            .map(|disk| disk["sizeBytes"].as_u64())
            .collect();
        (sizes == [Some(40 << 20), Some(64 << 20)]).then_some(())
    });
    // What was there before can be started from until then.
    let allowed = bed.machine()["replicatedItem"]["allowedOperations"].clone();
    let test = allowed
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["operation"] == "TestFailover")
        .unwrap();
    assert_eq!(test["allowed"], true, "{test}");
    bed.set_disks(&both);
    bed.over("DiskSizeChanged");
    bed.next_point();
    let listed = bed.points();
    for point in &known {
        assert!(listed.iter().any(|other| other["id"] == point["id"]), "{point}");
    }
    assert!(bed.assert_points_are_whole() > known.len());
    let item = bed.machine()["replicatedItem"].clone();
    let disks: Vec<_> = item["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk["stableId"].clone())
        .collect();
    assert_eq!(disks, both, "the boot disk first");
    // The newest point holds the disks as they are.
    let key = VaultKey::load(&bed.site.data.join("pki/vault.key")).unwrap();
    let store = Store::open_read_only(&bed.site.data.join("store"), &key).unwrap();
    let machine = store.machines()[0].id;
    let newest = store.points(machine).unwrap().pop().unwrap();
    assert_eq!(newest.disks.len(), 2);
    let file = bed.folder.path().join("newest");
    for disk in &newest.disks {
        restore(&store, machine, &newest, *disk, &file);
        let text = ok("debugfs", &["-R", "stat /after", file.to_str().unwrap()]);
        match file.metadata().unwrap().len() >> 20 {
            64 => assert!(text.contains(&format!("Size: {}", 20 << 20)), "{text}"),
            size => assert_eq!(size, 40),
        }
    }
}

#[test]
fn a_disk_that_is_taken_away_is_waited_for_excluded_or_exchanged() {
    if lacks_root() {
        return;
    }
    let bed = Bed::new();
    let ids: Vec<String> = bed.disks.iter().map(Disk::stable_id).collect();
    // Nothing writes to it: no read fails, and it is noticed all the same.
    bed.disks[1].vanish();
    let message = bed.said("DiskMissing");
    assert!(message.contains(&ids[1]), "{message}");
    let known = bed.points().len();
    bed.disks[0].write("meanwhile", b"meanwhile");
    // It comes back: replication goes on by itself, and compares when it is told to.
    bed.disks[1].appear();
    bed.over("DiskMissing");
    bed.next_point();
    bed.site.cli(&["failover", "resynchronize", "web1"]);
    assert!(bed.points().len() > known);

    // It does not come back: the machine goes on without it.
    bed.disks[1].vanish();
    bed.said("DiskMissing");
    bed.set_disks(&ids[..1]);
    bed.over("DiskMissing");
    bed.next_point();

    // Another one in its place, under the same name: it is not taken for the one before.
    let other = Disk::new(bed.folder.path(), "other", 32);
    other.write("other", b"other");
    other.vanish();
    let number = std::fs::metadata(&other.device.0).unwrap().rdev();
    ok(
        "mknod",
        &[
            bed.disks[1].node.to_str().unwrap(),
            "b",
            &rustix::fs::major(number).to_string(),
            &rustix::fs::minor(number).to_string(),
        ],
    );
    wait_for("the other disk", || {
        let machine = bed.machine();
        let disks = machine["machine"]["disks"].as_array()?;
        disks
            .iter()
            .any(|disk| disk["stableId"] == other.stable_id())
            .then_some(())
    });
    bed.set_disks(&[ids[0].clone(), other.stable_id()]);
    bed.next_point();
    // Exchanged under replication.
    bed.disks[1].vanish();
    bed.disks[1].appear();
    let message = bed.said("DiskMissing");
    assert!(message.contains(&other.stable_id()), "{message}");
    wait_for("the disk of before", || {
        let machine = bed.machine();
        let disks = machine["machine"]["disks"].as_array()?;
        disks.iter().any(|disk| disk["stableId"] == ids[1]).then_some(())
    });
    bed.set_disks(&ids);
    bed.over("DiskMissing");
    bed.next_point();
    bed.assert_points_are_whole();
}
