//! A machine joins by the one line that the server prints: in a root file system of its own (this system's, with everything
//! that is written kept apart), against a server process on loopback. Where no systemd runs inside, as here, a stand-in for
//! systemctl starts and stops what the unit says.
#[path = "support/serve.rs"]
mod serve;
mod support;
use serve::{LIFEBOAT, Site};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use support::{Mounted, lacks_root, wait_for};

const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/systemctl.log
stop() {
    [ -f /agent.pid ] || return 0
    kill "$(cat /agent.pid)" 2>/dev/null
    while kill -0 "$(cat /agent.pid)" 2>/dev/null; do sleep 0.05; done
    rm -f /agent.pid
}
case "$*" in
"restart lifeboat-agent")
    stop
    start=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/lifeboat-agent.service)
    (setsid $start >/agent.log 2>&1 & echo $! >/agent.pid) ;;
"disable --now lifeboat-agent") stop ;;
esac
"#;

/// A machine: this system's files, written elsewhere. Fields are dropped in this order.
struct Machine {
    _bound: Vec<Mounted>,
    _root: Mounted,
    _memory: Mounted,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (memory, root) = (folder.path().join("memory"), folder.path().join("root"));
        for path in [&memory, &root] {
            std::fs::create_dir(path).unwrap();
        }
        let held = Mounted::of_kind("tmpfs", "tmpfs", &memory, "size=512m");
        for name in ["upper", "work"] {
            std::fs::create_dir(memory.join(name)).unwrap();
        }
        let options = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", memory.display());
        let whole = Mounted::of_kind("overlay", "overlay", &root, &options);
        let bound = ["/proc", "/dev", "/sys"].map(|path| {
            let inside = root.join(&path[1..]);
            Mounted::new(path, &inside, "bind")
        });
        let machine = Self {
            _bound: bound.into(),
            _root: whole,
            _memory: held,
            root,
            _folder: folder,
        };
        let systemctl = machine.path("/usr/local/sbin/systemctl");
        std::fs::create_dir_all(systemctl.parent().unwrap()).unwrap();
        std::fs::write(&systemctl, SYSTEMCTL).unwrap();
        std::fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).unwrap();
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn run(&self, line: &str) -> (Output, String) {
        let output = Command::new("chroot")
            .arg(&self.root)
            .args(["/bin/sh", "-c", line])
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env_remove("LIFEBOAT_DATA_DIR")
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output, text)
    }

    fn good(&self, line: &str) -> String {
        let (output, text) = self.run(line);
        assert!(output.status.success(), "{text}");
        text
    }

    fn agent(&self) -> Option<u32> {
        let id: u32 = std::fs::read_to_string(self.path("/agent.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        Path::new(&format!("/proc/{id}")).exists().then_some(id)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.agent().is_some() {
            let _ = self.run("systemctl disable --now lifeboat-agent");
        }
    }
}

#[test]
fn one_line_joins_a_machine_and_another_takes_it_away() {
    if lacks_root() {
        return;
    }
    let site = Site::start();
    let machine = Machine::new();
    let program = machine.path("/usr/local/bin/lifeboat");
    let heard = |name: &str| {
        site.cli(&["machine", "list"])["items"]
            .as_array()?
            .iter()
            .find(|row| row["name"] == name && row["lastHeartbeatAt"].is_string())
            .cloned()
    };

    // Another key than the pinned one: not a byte of the script is read.
    let line = site.line();
    let pin = line.split("sha256//").nth(1).unwrap().split(' ').next().unwrap();
    let first = if pin.starts_with('A') { "B" } else { "A" };
    let wrong = line.replace(pin, &format!("{first}{}", &pin[1..]));
    let (_, text) = machine.run(&wrong);
    assert!(text.contains("public key"), "{text}");
    assert!(!program.exists());

    let line = format!("{line} --name web1");
    let text = machine.good(&line);
    assert!(text.contains("web1 has joined 127.0.0.1:"), "{text}");
    let row = wait_for("a heartbeat of web1", || heard("web1"));
    assert_eq!(row["agentVersion"], env!("CARGO_PKG_VERSION"));
    let own = std::fs::read(LIFEBOAT).unwrap();
    assert!(
        std::fs::read(&program).unwrap() == own,
        "it is the server's very executable"
    );
    let mode = std::fs::metadata(&program).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);

    // The token is spent, but nothing needs it: the line may be given again.
    let before = machine.agent().unwrap();
    let text = machine.good(&line);
    assert!(
        text.contains("is up to date") && text.contains("joined this server already"),
        "{text}"
    );
    assert_ne!(machine.agent(), Some(before), "the service was restarted");

    let text = machine.good(&line.replace(line.split("--token").nth(1).unwrap(), " ignored --uninstall"));
    assert!(text.contains("the agent is removed"), "{text}");
    assert!(machine.agent().is_none());
    for gone in [
        "/usr/local/bin/lifeboat",
        "/etc/systemd/system/lifeboat-agent.service",
        "/var/lib/lifeboat-agent",
    ] {
        assert!(!machine.path(gone).exists(), "{gone}");
    }

    // Each refusal with its reason, and nothing joined.
    let refused = |line: &str, code: &str| {
        let (output, text) = machine.run(line);
        assert!(!output.status.success(), "{text}");
        assert!(
            text.contains(code) && text.contains("recommended action: make a new one"),
            "{code}: {text}"
        );
        assert!(!machine.path("/var/lib/lifeboat-agent/identity.json").exists());
    };
    refused(&line, "TokenUsed");
    let late = site.line();
    let database = rusqlite::Connection::open(site.data.join("vault.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
        .execute("UPDATE invitations SET expires = 1 WHERE used IS NULL", [])
        .unwrap();
    refused(&late, "TokenExpired");
    let elsewhere = Site::start();
    let foreign = elsewhere.line();
    let token = foreign.split("--token ").nth(1).unwrap();
    let line = site.line();
    let own = line.split("--token ").nth(1).unwrap();
    refused(&line.replace(own, token), "ForeignToken");

    // With another token it comes back as the same machine.
    machine.good(&format!("{} --name web1", site.line()));
    let again = wait_for("a heartbeat after joining again", || heard("web1"));
    assert_eq!(again["id"], row["id"]);
    machine.good("/usr/local/bin/lifeboat agent uninstall");
}

/// A registration key needs nothing but its file, opens one vault once, and is refused with its reason otherwise.
#[test]
fn a_registration_key_opens_its_vault_once() {
    let site = Site::start();
    let elsewhere = Site::start();
    let folder = tempfile::tempdir().unwrap();
    site.cli(&["vaults", "create", "branch"]);
    let key = |site: &Site, vault: &str, name: &str| -> PathBuf {
        let file = folder.path().join(name);
        let made = Command::new(LIFEBOAT)
            .args([
                "vault",
                "registration-key",
                "--vault",
                vault,
                "--address",
                "127.0.0.1",
                "--out",
            ])
            .arg(&file)
            .env("LIFEBOAT_DATA_DIR", &site.data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        file
    };
    let join = |name: &str, args: &[&str]| {
        let output = Command::new(LIFEBOAT)
            .args([
                "agent",
                "join",
                "--name",
                name,
                "--machine-key",
                name,
                "--state-dir",
            ])
            .arg(folder.path().join(name))
            .args(args)
            .env_remove("LIFEBOAT_PASSPHRASE")
            .output()
            .unwrap();
        (output.status.success(), format!("{output:?}"))
    };
    let good = key(&site, "branch", "good.json");
    let file = good.to_str().unwrap();
    let (joined, text) = join("web1", &["--registration-key-file", file, "--vault", "default"]);
    assert!(
        !joined && text.contains("one of the vault branch, not of default"),
        "{text}"
    );
    // Refused, so it is still good.
    let (joined, text) = join("web1", &["--registration-key-file", file]);
    assert!(joined, "{text}");
    let of = |vault: &str| site.cli(&["machine", "list", "--vault", vault])["items"].clone();
    assert_eq!(of("branch")[0]["name"], "web1");
    assert_eq!(of("default").as_array().unwrap().len(), 0);
    let listed = site.cli(&["vault", "registration-key", "--vault", "branch", "list"]);
    let row = &listed["items"][0];
    assert_eq!(
        (row["state"].as_str(), row["usedBy"].as_str()),
        (Some("Used"), Some("web1"))
    );

    let (joined, text) = join("web2", &["--registration-key-file", file]);
    assert!(
        !joined && text.contains("the registration key was used"),
        "{text}"
    );
    let late = key(&site, "branch", "late.json");
    let database = rusqlite::Connection::open(site.data.join("vault.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
        .execute("UPDATE invitations SET expires = 1 WHERE used IS NULL", [])
        .unwrap();
    let (joined, text) = join("web2", &["--registration-key-file", late.to_str().unwrap()]);
    assert!(!joined && text.contains("the registration key expired"), "{text}");
    // A key of another site at this one: its file with this site's address and fingerprint.
    let foreign = key(&elsewhere, "default", "foreign.json");
    let mut changed: serde_json::Value = serde_json::from_slice(&std::fs::read(&foreign).unwrap()).unwrap();
    let own: serde_json::Value = serde_json::from_slice(&std::fs::read(&late).unwrap()).unwrap();
    for field in ["dataAddress", "caFingerprint"] {
        changed[field] = own[field].clone();
    }
    std::fs::write(&foreign, changed.to_string()).unwrap();
    let (joined, text) = join("web2", &["--registration-key-file", foreign.to_str().unwrap()]);
    assert!(!joined && text.contains("was made by another site"), "{text}");

    // With the passphrase a vault may be chosen too; one that is not there is named.
    let passphrase = site.data.join("pki/passphrase");
    let fingerprint = own["caFingerprint"].as_str().unwrap();
    let server = own["dataAddress"].as_str().unwrap();
    let by_passphrase = |name: &str, vault: &str| {
        let passphrase = passphrase.to_str().unwrap();
        join(
            name,
            &[
                "--server",
                server,
                "--fingerprint",
                fingerprint,
                "--passphrase-file",
                passphrase,
                "--vault",
                vault,
            ],
        )
    };
    let (joined, text) = by_passphrase("web3", "nosuch");
    assert!(!joined && text.contains("there is no vault nosuch"), "{text}");
    let (joined, text) = by_passphrase("web3", "branch");
    assert!(joined, "{text}");
    assert_eq!(of("branch").as_array().unwrap().len(), 2);
}
