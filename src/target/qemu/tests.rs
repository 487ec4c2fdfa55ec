use super::*;
use crate::target::{DiskAttachment, DiskBus, Nic};

fn spec(folder: &Path) -> MachineSpec {
    MachineSpec {
        name: "web1-test".into(),
        folder: folder.to_owned(),
        cpus: 1,
        memory_bytes: 64 << 20,
        firmware: Firmware::Bios,
        disk_bus: DiskBus::VirtioBlk,
        disks: vec![DiskAttachment {
            socket: folder.join("nbd.sock"),
            export: "disk".into(),
            file: None,
        }],
        nics: Vec::new(),
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let fine = spec(&folder.path().join("vm"));
    validate(&fine).unwrap();
    let wrong = |change: &dyn Fn(&mut MachineSpec)| {
        let mut spec = fine.clone();
        change(&mut spec);
        let error = QemuCompute::new().prepare(&spec).unwrap_err();
        assert!(matches!(error, TargetError::Refused(_)), "{error}");
        assert!(!fine.folder.exists());
    };
    wrong(&|spec| spec.name = "a,file=/etc/shadow".into());
    wrong(&|spec| spec.name = String::new());
    wrong(&|spec| spec.folder = "vm".into());
    wrong(&|spec| spec.disks[0].socket = "nbd.sock".into());
    wrong(&|spec| spec.disks[0].socket = format!("/{}", "s".repeat(120)).into());
    wrong(&|spec| {
        spec.nics.push(Nic {
            mac: Some("02:00:00:00:00:01,romfile=/etc/shadow".into()),
            network: Network::User { forwards: Vec::new() },
            address: None,
        });
    });
}

#[test]
fn a_folder_is_removed_only_when_it_is_a_machines_also_after_a_removal_cut_short() {
    let outer = tempfile::tempdir().unwrap();
    let spec = spec(&outer.path().join("vm"));
    let compute = QemuCompute::new();
    compute.destroy(&spec).unwrap();
    // Somebody else's.
    std::fs::create_dir(&spec.folder).unwrap();
    std::fs::write(spec.folder.join("letter"), "dear").unwrap();
    assert!(matches!(compute.destroy(&spec), Err(TargetError::Refused(_))));
    assert!(spec.folder.join("letter").exists());
    // Half-made, half-removed.
    for left in [vec![], vec!["machine.json.new"], vec!["machine.json", "run.json"]] {
        std::fs::remove_dir_all(&spec.folder).unwrap();
        std::fs::create_dir(&spec.folder).unwrap();
        for name in left {
            std::fs::write(spec.folder.join(name), "").unwrap();
        }
        compute.destroy(&spec).unwrap();
        assert!(!spec.folder.exists());
        compute.prepare(&spec).unwrap();
        compute.prepare(&spec).unwrap();
        assert_eq!(compute.status(&spec).unwrap().power, Power::Stopped);
    }
    compute.destroy(&spec).unwrap();
}

#[test]
fn a_port_is_kept_while_it_is_free() {
    let mut spec = spec(Path::new("/vm"));
    let forward = |host_port, guest_port| Forward {
        host_port,
        guest_port,
    };
    spec.nics = vec![Nic {
        mac: None,
        network: Network::User {
            forwards: vec![forward(0, 80), forward(7, 22), forward(0, 443)],
        },
        address: None,
    }];
    let first = choose_ports(&spec, &[]).unwrap();
    assert!(first[0].host_port != 0 && first[2].host_port != 0);
    assert_ne!(first[0].host_port, first[2].host_port);
    assert_eq!(first[1], forward(7, 22));
    assert_eq!(choose_ports(&spec, &first).unwrap(), first);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first[0].host_port)).unwrap();
    let second = choose_ports(&spec, &first).unwrap();
    assert_ne!(second[0], first[0]);
    assert_eq!(second[2], first[2]);
    drop(taken);
}
