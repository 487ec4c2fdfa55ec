//! A person takes recovery points of a disk and gets every one of them back, by the command line and by the
//! NBD clients of others.
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        site.ok(&["create"]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .arg("store")
            .arg(args[0])
            .args(["--dir", "store"]);
        command.args(&args[1..]);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> Value {
        let output = self.command(args).arg("--json").output().unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// 24 MiB: data that does not compress, text that does, and a hole; 512 bytes short of a whole block.
    fn make_disk(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len((24 << 20) - 512).unwrap();
        let noise = noise(3 << 20, 1);
        file.write_all_at(&noise, 1 << 20).unwrap();
        file.write_all_at(&b"ledger ".repeat(200_000), 9 << 20).unwrap();
        file.write_all_at(&noise[..5000], (24 << 20) - 512 - 5000)
            .unwrap();
        path
    }
}

/// Bytes that do not compress, the same for the same seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A command of others must be there: these tests say nothing without their peers.
fn peer(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (tests/all.sh installs it): {error}"))
}

fn peer_ok(program: &str, args: &[&str]) -> String {
    let output = peer(program, args);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

struct Nbd(Child, String);

impl Nbd {
    fn start(site: &Site, args: &[&str]) -> Self {
        let all = [&["nbd"], args, &["--json"]].concat();
        let mut child = site.command(&all).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let uri = ready["uri"].as_str().unwrap().to_owned();
        Self(child, uri)
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn same(a: &Path, b: &Path) {
    assert!(
        std::fs::read(a).unwrap() == std::fs::read(b).unwrap(),
        "{} and {} differ",
        a.display(),
        b.display()
    );
}

#[test]
fn every_recovery_point_comes_back_bit_for_bit() {
    let site = Site::new();
    let disk = site.make_disk("disk.img");
    let mut points = Vec::new();
    for round in 0..4u64 {
        if round > 0 {
            let file = std::fs::File::options().write(true).open(&disk).unwrap();
            file.write_all_at(&noise(100_000, round), round * 2_500_000 + 77)
                .unwrap();
            file.write_all_at(&[0; 300_000], (1 << 20) + round * 400_000)
                .unwrap();
        }
        let imported = site.ok(&["import", "--name", "web1", "disk.img"]);
        assert_eq!(imported["consistency"], "CrashConsistent");
        if round > 0 {
            let changed = imported["changedBytes"].as_u64().unwrap();
            assert!(changed < 700_000, "{changed} bytes were taken for changed");
        }
        let copy = site.path(&format!("at{round}"));
        std::fs::copy(&disk, &copy).unwrap();
        points.push((imported["recoveryPoint"].as_str().unwrap().to_owned(), copy));
    }
    let stats = site.ok(&["stats"]);
    let machine = &stats["machines"][0];
    assert_eq!(
        (&machine["name"], &machine["recoveryPoints"]),
        (&"web1".into(), &4.into())
    );
    assert_eq!(machine["storedBytes"], stats["storedBytes"]);
    assert!(stats["freeBytes"].as_u64().unwrap() > 0);
    let listed = site.ok(&["points", "web1"]);
    let listed: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        listed,
        points.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()
    );
    for (id, copy) in &points {
        let out = format!("{}.raw", copy.display());
        site.ok(&["export", "web1", "--point", id, "--output", &out]);
        same(Path::new(&out), copy);
    }
    let report = site.ok(&["verify"]);
    assert_eq!(report["damages"], serde_json::json!([]));
    assert!(report["frames"].as_u64().unwrap() > 10);
    // Nothing readable lies in the store.
    let layers = peer_ok(
        "sh",
        &[
            "-c",
            &format!("cat {}/machines/*/*/*.layer", site.path("store").display()),
        ],
    );
    assert!(!layers.contains("ledger"));
}

#[test]
fn the_clients_of_others_read_the_same_bytes() {
    let site = Site::new();
    let disk = site.make_disk("disk.img");
    // qemu counts in sectors: a whole number of them.
    site.ok(&["import", "--name", "web1", "disk.img"]);
    let socket = format!("unix:{}", site.path("nbd.sock").display());
    let disk = disk.to_str().unwrap();
    for listen in [socket.as_str(), "127.0.0.1:0"] {
        let nbd = Nbd::start(&site, &["web1", "--listen", listen]);
        let info = peer_ok("nbdinfo", &[&nbd.1]);
        assert!(
            info.contains("export-size: 25165312") && info.contains("is_read_only: true"),
            "{info}"
        );
        assert!(info.contains("base:allocation"), "{info}");
        assert!(peer_ok("nbdinfo", &["--list", &nbd.1]).contains("export=\"web1\""));
        let map = peer_ok("nbdinfo", &["--map", &nbd.1]);
        assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
        peer_ok("qemu-img", &["compare", "-f", "raw", "-F", "raw", disk, &nbd.1]);
        let copied = site.path("copied.raw");
        peer_ok("nbdcopy", &[&nbd.1, copied.to_str().unwrap()]);
        same(&copied, Path::new(disk));
        let converted = site.path("converted.qcow2");
        peer_ok(
            "qemu-img",
            &[
                "convert",
                "-f",
                "raw",
                "-O",
                "qcow2",
                &nbd.1,
                converted.to_str().unwrap(),
            ],
        );
        peer_ok("qemu-img", &["compare", disk, converted.to_str().unwrap()]);
        // A write is refused, and the server lives on.
        let write = peer("qemu-io", &["-f", "raw", "-c", "write 0 512", &nbd.1]);
        assert!(!write.status.success());
        assert!(
            !peer("nbdinfo", &[&nbd.1.replace("web1", "nobody")])
                .status
                .success()
        );
        peer_ok("nbdinfo", &[&nbd.1]);
    }
}

#[test]
fn a_killed_import_leaves_the_points_before_it_and_is_simply_run_again() {
    let site = Site::new();
    let disk = site.make_disk("disk.img");
    site.ok(&["import", "--name", "web1", "disk.img"]);
    std::fs::copy(&disk, site.path("before")).unwrap();
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    let layers = || {
        let out = peer_ok(
            "sh",
            &[
                "-c",
                &format!(
                    "cat {}/machines/*/*/*.layer | wc -c",
                    site.path("store").display()
                ),
            ],
        );
        out.trim().parse::<u64>().unwrap()
    };
    let mut killed = 0;
    for round in 0..12 {
        file.write_all_at(&noise(12 << 20, round + 100), 1 << 20).unwrap();
        let before = layers();
        let mut child = site
            .command(&["import", "--name", "web1", "disk.img"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The kill comes when a part of the data has arrived, a different part each time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() && layers() < before + (round % 6) * (2 << 20) {
            assert!(std::time::Instant::now() < deadline, "the import does nothing");
        }
        let finished = child.try_wait().unwrap().is_some();
        let _ = child.kill();
        child.wait().unwrap();
        killed += u32::from(!finished);
        let points = site.ok(&["points", "web1"]);
        let first = points[0]["id"].as_str().unwrap();
        let out = format!("{}", site.path(&format!("first{round}")).display());
        site.ok(&["export", "web1", "--point", first, "--output", &out]);
        same(Path::new(&out), &site.path("before"));
        std::fs::remove_file(out).unwrap();
    }
    assert!(killed > 0, "no import was killed under way");
    let last = site.ok(&["import", "--name", "web1", "disk.img"]);
    let out = site.path("last");
    site.ok(&[
        "export",
        "web1",
        "--point",
        last["recoveryPoint"].as_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
    ]);
    same(&out, &disk);
    assert_eq!(site.ok(&["verify"])["damages"], serde_json::json!([]));
}

#[test]
fn damage_and_misuse_are_said_with_causes_and_action() {
    let site = Site::new();
    site.make_disk("disk.img");
    site.ok(&["import", "--name", "web1", "disk.img"]);
    let says = |output: &Output, code: i32| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(
            text.contains("possible causes: ") && text.contains("recommended action: "),
            "{text}"
        );
    };
    says(&site.run(&["export", "nobody", "-o", "x"]), 5);
    says(&site.run(&["export", "web1", "-o", "disk.img"]), 1);
    says(&site.run(&["import", "--name", "web1", "missing.img"]), 5);
    let other = site.path("other.key");
    std::fs::write(&other, "00".repeat(32)).unwrap();
    says(&site.run(&["verify", "--key-file", "other.key"]), 12);
    let nowhere = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(["store", "points", "--dir", "/nonexistent/store"])
        .output()
        .unwrap();
    says(&nowhere, 10);
    let find = format!("ls {}/machines/*/*/*.layer", site.path("store").display());
    let layer = peer_ok("sh", &["-c", &find]);
    let file = std::fs::File::options().write(true).open(layer.trim()).unwrap();
    file.write_all_at(b"damage", 5000).unwrap();
    let output = site.run(&["verify"]);
    says(&output, 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 recovery points hit"));
}

#[test]
fn all_disks_of_a_machine_are_in_one_point_also_an_empty_one() {
    let site = Site::new();
    let system = site.make_disk("system.img");
    let data = site.path("data.img");
    std::fs::File::create(&data).unwrap().set_len(5 << 20).unwrap();
    let imported = site.ok(&["import", "--name", "db1", "system.img", "data.img"]);
    assert_eq!(
        site.ok(&["points", "db1"])[0]["disks"].as_array().unwrap().len(),
        2
    );
    for (index, disk) in [system, data].iter().enumerate() {
        let out = site.path(&format!("out{index}"));
        let point = imported["recoveryPoint"].as_str().unwrap();
        let index = index.to_string();
        site.ok(&[
            "export",
            "db1",
            "--disk",
            &index,
            "--point",
            point,
            "-o",
            out.to_str().unwrap(),
        ]);
        same(&out, disk);
    }
    let pruned = site.ok(&["prune", "db1"]);
    assert_eq!(pruned["removed"], serde_json::json!([]));
}
