//! A machine moves to a network with other addresses: tried in an isolated one, moved for real, and back home as it was.
//!
//! The machine is a real one of the lab, with ifupdown (busybox) as its way to an address: at home by DHCP.
#[path = "support/capture.rs"]
mod capture;
#[path = "support/serve.rs"]
mod serve;
mod support;
use capture::Capture;
use lifeboat::api::client::{Address, Client};
use lifeboat::lab::machine::{self, DATA_FOLDER, MachinePlan, build};
use lifeboat::lab::packages::{Kernel, fetch};
use lifeboat::lab::verify::verify;
use lifeboat::target::network::IsolatedNetwork;
use lifeboat::target::network::probe::Probe;
use serde_json::{Value, json};
use serve::{LIFEBOAT, Site, forget_disks};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok, umount, wait_for};

/// A boot takes seconds where there is a processor to spare, and much longer where there is not.
const BOOT: Duration = Duration::from_secs(240);
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x77, 0x00, 0x51];
// Not of a network that this host is in: the bridge stands for production on it.
const HOST: &str = "198.18.77.1";
const TESTED: &str = "198.18.77.50";
const MOVED: &str = "198.18.77.60";
const INTERFACES: &str = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n    up true\n";

struct Bridge(String);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine's disk.
struct Machine {
    disk: LoopDisk,
    image: PathBuf,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = MachinePlan::numbered(1, machine::DEFAULT_DISK_BYTES);
        plan.name = "mover".to_owned();
        plan.kernel = Kernel::Cloud;
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-cache");
        let parts = fetch(&cache, plan.kernel, &mut |line| eprintln!("{line}")).unwrap();
        let image = folder.path().join("disk.img");
        build(&plan, &parts, Path::new(LIFEBOAT), &image).unwrap();
        with_root(&image, |root| {
            std::fs::remove_file(root.join("etc/lab/address")).unwrap();
            for folder in ["etc/network/if-pre-up.d", "etc/network/if-up.d", "var/run"] {
                std::fs::create_dir_all(root.join(folder)).unwrap();
            }
            std::fs::write(root.join("etc/network/interfaces"), INTERFACES).unwrap();
            for applet in ["ip", "ifup", "run-parts", "udhcpc", "true"] {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
            let path = root.join("sbin/init");
            let init = std::fs::read_to_string(&path).unwrap();
            let from = init.find("read -r address").unwrap();
            let to = from + init[from..].find("\ndone\n").unwrap() + "\ndone\n".len();
            let ifup = "export PATH=/bin\nifup -a >/tmp/ifup.log 2>&1 &\n";
            std::fs::write(&path, format!("{}{ifup}{}", &init[..from], &init[to..])).unwrap();
        });
        let disk = LoopDisk::attach(&image, 0);
        Self { disk, image, folder }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        forget_disks(&self.folder.path().join("state"));
    }
}

/// Nothing else has the disk meanwhile.
fn with_root<T>(image: &Path, work: impl FnOnce(&Path) -> T) -> T {
    let offset = machine::ROOT_OFFSET.to_string();
    let arguments = ["--find", "--show", "--offset", &offset, image.to_str().unwrap()];
    let device = LoopDisk(PathBuf::from(ok("losetup", &arguments).trim()));
    let mounted = Mounted::new(device.path(), &image.with_extension("root"), "rw");
    let result = work(&mounted.0);
    umount(&mounted.0);
    std::mem::forget(mounted);
    result
}

/// The isolated network that this server's machine is in.
fn isolated_network(data: &Path) -> IsolatedNetwork {
    let mark = data.to_str().unwrap();
    let holds = |folder: &Path| {
        std::fs::read_dir(folder).is_ok_and(|notes| {
            notes
                .flatten()
                .any(|note| std::fs::read_to_string(note.path()).is_ok_and(|text| text.contains(mark)))
        })
    };
    let networks = std::fs::read_dir("/run/lifeboat/networks").unwrap();
    let found = networks.flatten().find(|entry| holds(&entry.path()));
    let name = found.expect("a network of the test").file_name();
    IsolatedNetwork::new(name.to_str().unwrap()).unwrap()
}

fn wait_for_boot<T>(what: &str, site: &Site, args: &[&str], mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + BOOT;
    loop {
        let error = match ask() {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        if Instant::now() > end {
            let output = Command::new(LIFEBOAT)
                .args(["failover", "machine", "mover", "--serial-log"])
                .args(args)
                .env("LIFEBOAT_DATA_DIR", &site.data)
                .output()
                .unwrap();
            panic!("{what}: {error}\n{}", String::from_utf8_lossy(&output.stdout));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn message_of(job: &Value, says: &str) -> String {
    let tasks = job["tasks"].as_array().unwrap();
    let mut messages = tasks.iter().filter_map(|task| task["message"].as_str());
    let found = messages.find(|message| message.contains(says));
    found
        .unwrap_or_else(|| panic!("no task says {says}: {job:#}"))
        .to_owned()
}

#[test]
fn a_machine_gets_its_new_address_and_comes_home_with_its_old_one() {
    if lacks_root() {
        return;
    }
    let begin = Instant::now();
    let say = |what: &str| println!("{:.1?}: {what}", begin.elapsed());
    let machine = Machine::new();
    let production = Bridge(format!("lba{}", std::process::id() % 100_000));
    ok("ip", &["link", "add", &production.0, "type", "bridge"]);
    ok(
        "ip",
        &["addr", "add", &format!("{HOST}/24"), "dev", &production.0],
    );
    ok("ip", &["link", "set", &production.0, "up"]);

    let site = Site::start();
    let state = machine.folder.path().join("state");
    site.join("mover", &state, &[machine.disk.path()]);
    let agent = Command::new(LIFEBOAT)
        .args(["agent", "run", "--freeze-deadline", "20000", "--state-dir"])
        .arg(&state)
        .stderr(Stdio::null())
        .spawn();
    let agent = Ended(agent.unwrap());
    wait_for("the agent's heartbeat", || {
        let rows = site.cli(&["machine", "list"]);
        rows["items"][0]["lastHeartbeatAt"].is_string().then_some(())
    });
    site.cli(&["protect", "mover", "--wait", "--timeout", "120"]);
    site.cli(&[
        "network", "create", "drill", "--kind", "isolated", "--dhcp", "off",
    ]);
    let lan = [
        "network",
        "create",
        "lan",
        "--kind",
        "production-bridge",
        "--bridge",
        &production.0,
    ];
    site.cli(&lan);
    let map = [
        "network", "map", "*", "--target", "lan", "--test", "drill", "--apply",
    ];
    site.cli(&map);
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    let mut client = Client::new(Address::Unix(site.data.join("api.sock")), None, None).unwrap();
    let path = "/api/v1/vaults/default/replicated-items/mover";
    let item: Value = client.get(path).unwrap();
    let mut target = item["target"].clone();
    assert_eq!(
        target["nics"][0]["network"],
        json!({ "kind": "named", "name": "lan" })
    );
    for (nics, network, address) in [("nics", "lan", MOVED), ("testNics", "drill", TESTED)] {
        target[nics] = json!([{ "mac": mac, "network": { "kind": "named", "name": network },
            "address": { "cidr": format!("{address}/24"), "gateway": HOST } }]);
    }
    target["memoryBytes"] = json!(512 << 20);
    let settings = format!("{path}/target-settings");
    client
        .request(hyper::Method::PUT, &settings, Some(&target), &[])
        .unwrap();
    for (operation, address) in [("test", TESTED), ("planned", MOVED), ("unplanned", MOVED)] {
        let preview = site.cli(&["network", "preview", "mover", "--operation", operation]);
        let how = preview["nics"][0]["how"].as_str().unwrap();
        assert!(
            how.starts_with(&format!("{address}/24 will be set in the branch")),
            "{how}"
        );
    }
    say("protected");

    let capture = Capture::of(MAC);
    let job = site.order(&["failover", "test", "mover"]);
    message_of(&job, &format!("ifupdown sets eth0 to {TESTED}/24"));
    let network = isolated_network(&site.data);
    let http = Probe::Http {
        port: 80,
        path: "/".to_owned(),
        status: None,
    };
    let tested: SocketAddr = format!("{TESTED}:80").parse().unwrap();
    let limit = Duration::from_secs(2);
    wait_for_boot("the machine of the test", &site, &["--test"], || {
        network.probe(&http, tested, limit)
    });
    network.probe(&Probe::Ping, tested, limit).unwrap();
    say("the machine of the test answers at its address");
    // Production is another network, with the same addresses.
    Probe::Ping.ask(tested, Duration::from_millis(500)).unwrap_err();
    let asked = capture.seen();
    assert_eq!(asked, 0, "frames of the test came out");
    site.order(&["failover", "cleanup", "mover", "--notes", "it answers"]);
    assert_eq!(capture.seen(), 0, "frames of the test came out");

    let job = site.order(&["failover", "planned", "mover", "--confirm", "mover"]);
    message_of(&job, &format!("ifupdown sets eth0 to {MOVED}/24"));
    let moved: SocketAddr = format!("{MOVED}:80").parse().unwrap();
    wait_for_boot("the machine in production", &site, &[], || http.ask(moved, limit));
    // It is the same capture: it would have seen the others.
    assert!(capture.seen() > 0);
    say("the moved machine answers in production");

    drop(agent);
    site.order(&["failover", "commit", "mover", "--confirm", "mover"]);
    let receiver = Command::new(LIFEBOAT)
        .args([
            "agent",
            "receive",
            "--json",
            "--yes",
            "--machine",
            "mover",
            "--state-dir",
        ])
        .arg(&state)
        .args(["--disk", machine.disk.path()])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(machine.folder.path().join("receive.log")).unwrap())
        .spawn();
    let mut receiver = Ended(receiver.unwrap());
    site.order(&["failover", "reprotect", "mover"]);
    let job = site.order(&["failover", "failback", "mover", "--confirm", "mover"]);
    message_of(&job, "Its network configuration is as it was at home");
    let ended = wait_for("the end of the receiver", || receiver.0.try_wait().unwrap());
    let said = std::fs::read_to_string(machine.folder.path().join("receive.log")).unwrap();
    assert!(ended.success(), "{said}");
    ok("blockdev", &["--flushbufs", machine.disk.path()]);
    with_root(&machine.image, |root| {
        let found = std::fs::read_to_string(root.join("etc/network/interfaces")).unwrap();
        assert_eq!(found, INTERFACES);
        let verdict = verify(&root.join(DATA_FOLDER));
        assert!(verdict.ok() && verdict.entries > 0, "{verdict:?}");
    });
    say("home as it was");
}
