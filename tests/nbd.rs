//! A branch over NBD, used by the clients of others: what they write is what comes back.
mod support;
use lifeboat::export::nbd::{Export, Listen, NbdServer};
use lifeboat::export::{BlockDevice, Branch};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Base, noise, ok};

const SIZE: usize = 16 << 20;

struct Site {
    /// First, so that it ends before its folder.
    server: NbdServer,
    branches: Vec<Arc<Branch>>,
    folder: tempfile::TempDir,
}

impl Site {
    /// Two disks, `system` and `data`, over different noise.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut branches = Vec::new();
        let mut exports = Vec::new();
        for (seed, name) in ["system", "data"].into_iter().enumerate() {
            let base = Arc::new(Base(noise(SIZE, seed as u64)));
            let branch = Arc::new(Branch::open(&folder.path().join(name), base).unwrap());
            exports.push(Export {
                name: name.to_owned(),
                device: branch.clone(),
            });
            branches.push(branch);
        }
        let server = NbdServer::bind(Listen::Unix(folder.path().join("nbd.sock")), exports).unwrap();
        Self {
            server,
            branches,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.text("nbd.sock"))
    }

    fn content(&self, disk: usize) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        self.branches[disk].read_at(0, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn each_export_is_a_disk_of_its_own() {
    let site = Site::new();
    assert_eq!(site.server.first_read(), None);
    let before = Instant::now();
    let list = ok("nbdinfo", &["--list", &site.uri("")]);
    for word in [
        "export=\"system\"",
        "export=\"data\"",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "can_fua: true",
        "is_read_only: false",
    ] {
        assert!(list.contains(word), "{word} is not in {list}");
    }
    for (disk, name) in ["system", "data"].into_iter().enumerate() {
        let copy = site.text("copy");
        ok("nbdcopy", &[&site.uri(name), &copy]);
        assert!(std::fs::read(&copy).unwrap() == noise(SIZE, disk as u64));
        ok(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", &copy, &site.uri(name)],
        );
        std::fs::remove_file(copy).unwrap();
    }
    let first = site.server.first_read().unwrap();
    assert!(before < first && first < Instant::now());
    // Written by many connections at once, read by another client.
    let other = site.text("other");
    std::fs::write(&other, noise(SIZE, 9)).unwrap();
    ok(
        "nbdcopy",
        &[
            "--connections=4",
            "--requests=16",
            "--flush",
            &other,
            &site.uri("data"),
        ],
    );
    ok(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &other, &site.uri("data")],
    );
    assert!(site.content(0) == noise(SIZE, 0) && site.content(1) == noise(SIZE, 9));
}

#[test]
fn zeros_and_trim_by_qemu() {
    let site = Site::new();
    let mut model = noise(SIZE, 0);
    let uri = site.uri("system");
    let qemu_io = |commands: &[&str]| {
        let mut args = vec!["-f", "raw", "-d", "unmap", "-t", "none"];
        commands.iter().for_each(|command| args.extend(["-c", command]));
        args.push(&uri);
        let said = ok("qemu-io", &args);
        assert!(!said.contains("failed"), "{said}");
    };
    qemu_io(&[
        "write -z 1M 2M",
        "write -z -u 5000k 3k",
        "write -P 171 4097K 511",
        "write -f -P 172 5001K 1K",
        "discard 9M 3M",
        "flush",
        "read -P 0 1M 2M",
        "read -P 0 9M 3M",
        "read -P 172 5001K 1K",
    ]);
    model[1 << 20..3 << 20].fill(0);
    model[5000 << 10..5003 << 10].fill(0);
    model[4097 << 10..(4097 << 10) + 511].fill(171);
    model[5001 << 10..5002 << 10].fill(172);
    model[9 << 20..12 << 20].fill(0);
    assert!(site.content(0) == model);
    let map = ok("nbdinfo", &["--map", &uri]);
    let zeros: u64 = map
        .lines()
        .filter(|line| line.contains("hole,zero"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(zeros, 5 << 20, "{map}");
    // What reads sparsely reads the same.
    let sparse = site.text("sparse.qcow2");
    ok(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", &uri, &sparse],
    );
    ok(
        "qemu-img",
        &["compare", "-f", "qcow2", "-F", "raw", &sparse, &uri],
    );
}

#[test]
fn fio_finds_what_it_wrote() {
    let site = Site::new();
    let uri = format!("--uri=nbd+unix:///data?socket={}", site.text("nbd.sock"));
    let size = format!("--size={SIZE}");
    let said = ok(
        "fio",
        &[
            "--name=guest",
            "--ioengine=nbd",
            &uri,
            &size,
            "--rw=randrw",
            "--bsrange=512-64k",
            "--bs_unaligned=1",
            "--iodepth=16",
            "--fsync=20",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--verify_state_save=0",
            "--output-format=json",
        ],
    );
    assert!(said.contains("\"error\" : 0"), "{said}");
    assert!(site.branches[1].changed_blocks() > 1000);
}

#[test]
fn what_is_refused_leaves_the_connection_alive() {
    let site = Site::new();
    // Past the end, by a client that does not look at the size first.
    let mut peer = RawClient::connect(&site.path("nbd.sock"), "system");
    let past = SIZE as u64 - 100;
    assert_eq!(peer.request(1, 0, past, &[1; 200], 200), 28, "ENOSPC");
    assert_eq!(peer.request(6, 0, past, &[], 200), 28, "ENOSPC");
    assert_eq!(peer.request(0, 0, past, &[], 200), 22, "EINVAL");
    assert_eq!(peer.request(0, 0, u64::MAX - 5, &[], 200), 22, "EINVAL");
    assert_eq!(peer.request(77, 0, 0, &[], 0), 22, "EINVAL");
    assert_eq!(peer.request(1, 1, 0, &[7; 512], 512), 0);
    assert_eq!(peer.request(3, 0, 0, &[], 0), 0);
    assert_eq!(site.content(0)[..512], [7; 512]);
    assert!(site.content(0)[512..] == noise(SIZE, 0)[512..]);
}

/// Speaks the least: an export by its name, simple replies.
struct RawClient(UnixStream);

impl RawClient {
    fn connect(socket: &Path, export: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        let mut hello = 3u32.to_be_bytes().to_vec();
        hello.extend_from_slice(b"IHAVEOPT");
        hello.extend_from_slice(&1u32.to_be_bytes());
        hello.extend_from_slice(&(export.len() as u32).to_be_bytes());
        hello.extend_from_slice(export.as_bytes());
        stream.write_all(&hello).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        Self(stream)
    }

    /// The error code of the answer. Reads that succeed are not spoken here.
    fn request(&mut self, command: u16, flags: u16, offset: u64, data: &[u8], len: u32) -> u32 {
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&command.to_be_bytes());
        bytes.extend_from_slice(&[9; 8]);
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
        self.0.write_all(&bytes).unwrap();
        let mut answer = [0; 16];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer[8..], [9; 8]);
        u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]])
    }
}

#[test]
fn a_server_ends_while_clients_are_connected_and_a_new_one_takes_its_socket() {
    let site = Site::new();
    let socket = site.path("nbd.sock");
    let mut peer = RawClient::connect(&socket, "data");
    assert_eq!(peer.request(1, 0, 0, &[7; 512], 512), 0);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let Site {
        server,
        branches,
        folder,
    } = site;
    let exports = |branches: &[Arc<Branch>]| {
        vec![Export {
            name: "data".into(),
            device: branches[1].clone(),
        }]
    };
    // The new one is there before the old one ends, and the old one leaves the new one's socket alone.
    let next = NbdServer::bind(Listen::Unix(socket.clone()), exports(&branches)).unwrap();
    server.shutdown();
    assert_eq!(peer.0.read(&mut [0]).unwrap(), 0, "the connection was not cut");
    let mut peer = RawClient::connect(&socket, "data");
    assert_eq!(peer.request(3, 0, 0, &[], 0), 0);
    next.shutdown();
    assert!(!socket.exists());
    // Something else than a socket is not overwritten.
    std::fs::write(&socket, "a person's file").unwrap();
    assert!(NbdServer::bind(Listen::Unix(socket.clone()), exports(&branches)).is_err());
    assert_eq!(std::fs::read(&socket).unwrap(), b"a person's file");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// A disk whose flush lasts until a file appears.
struct SlowFlush(Base, PathBuf);

impl BlockDevice for SlowFlush {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> std::io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.1.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
    fn status(&self, offset: u64, len: u64) -> std::io::Result<Vec<(u64, bool)>> {
        self.0.status(offset, len)
    }
}

#[test]
fn a_slow_flush_does_not_hold_up_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let socket = folder.path().join("nbd.sock");
    let export = Export {
        name: String::from("disk"),
        device: Arc::new(SlowFlush(Base(noise(1 << 20, 1)), go.clone())),
    };
    let _server = NbdServer::bind(Listen::Unix(socket.clone()), vec![export]).unwrap();
    let mut peer = RawClient::connect(&socket, "disk");
    // Two flushes with cookie 1, then a write with cookie 9: the write is answered first.
    let mut flush = 0x2560_9513u32.to_be_bytes().to_vec();
    flush.extend_from_slice(&[0, 0, 0, 3]);
    flush.extend_from_slice(&[1; 8]);
    flush.extend_from_slice(&[0; 12]);
    peer.0.write_all(&flush).unwrap();
    peer.0.write_all(&flush).unwrap();
    assert_eq!(peer.request(1, 0, 0, &[7; 512], 512), 0);
    std::fs::write(&go, "").unwrap();
    for _ in 0..2 {
        let mut answer = [0; 16];
        peer.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer[4..], [[0; 4].as_slice(), &[1; 8]].concat());
    }
}

#[test]
fn what_was_acknowledged_over_nbd_is_in_the_file_system() {
    let site = Site::new();
    let file = site.text("file");
    std::fs::write(&file, noise(1 << 20, 5)).unwrap();
    let write = format!("write -s {file} 3M 1M");
    ok("qemu-io", &["-f", "raw", "-c", &write, &site.uri("system")]);
    let data = std::fs::File::open(site.path("system/data")).unwrap();
    let mut read = vec![0; 1 << 20];
    data.read_exact_at(&mut read, 3 << 20).unwrap();
    assert!(read == noise(1 << 20, 5));
}
