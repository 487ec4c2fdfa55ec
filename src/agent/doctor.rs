//! The prerequisites of a protected machine, each with what to do about it (reference model, section 3).
use super::capture;
use super::mounts;
use super::quiesce::Quiesce;
use super::quiesce::shipped::SHIPPED;
use crate::wire::facts::{Check, CheckResult, Inventory};
use std::path::{Path, PathBuf};

/// Free space that an agent's update and its logs need.
const FREE_BYTES_MIN: u64 = 2 << 30;
/// Larger disks were not tried at the target.
const DISK_BYTES_MAX: u64 = 64 << 40;
const PROTECTED_PATHS: [&str; 6] = ["/", "/boot", "/usr", "/usr/local", "/var", "/etc"];

fn check(name: &str, result: CheckResult, message: impl Into<String>, causes: &str, action: &str) -> Check {
    let pass = result == CheckResult::Pass;
    Check {
        name: name.to_owned(),
        result,
        message: message.into(),
        causes: if pass { String::new() } else { causes.to_owned() },
        action: if pass { String::new() } else { action.to_owned() },
    }
}

fn when(bad: bool, result: CheckResult) -> CheckResult {
    if bad { result } else { CheckResult::Pass }
}

/// All checks that need no server. `only`: disks that the agent is restricted to; then what lies on other disks is not asked.
pub fn checks(inventory: &Inventory, only: &[PathBuf], quiesce: &Quiesce) -> Vec<Check> {
    let mut checks = vec![
        architecture(inventory),
        name_rule(&inventory.host_name),
        free_space(),
        ascii(inventory),
        capture_mode(only),
        identities(inventory),
        freezable(inventory),
        sizes(inventory),
        hooks(quiesce),
    ];
    if only.is_empty() {
        checks.extend([
            hosts_file(inventory),
            system_paths(inventory),
            one_boot_disk(inventory),
            initramfs(inventory),
            ssh(),
            swap(),
        ]);
    }
    checks
}

fn architecture(inventory: &Inventory) -> Check {
    let known = ["x86_64", "aarch64"].contains(&inventory.architecture.as_str());
    check(
        "64-bit",
        when(!known, CheckResult::Error),
        format!("the machine is {}", inventory.architecture),
        "the target starts 64-bit machines only",
        "protect 64-bit machines",
    )
}

fn name_rule(name: &str) -> Check {
    let good = crate::wire::is_machine_name(name);
    check(
        "machine name",
        when(!good, CheckResult::Warning),
        format!("the host name is {name}"),
        "a machine name is 1 to 63 letters, digits and hyphens and starts and ends with a letter or digit",
        "join with a name that keeps the rule: lifeboat agent join --name NAME",
    )
}

fn free_space() -> Check {
    let free = rustix::fs::statvfs("/var").map(|stat| stat.f_bavail * stat.f_frsize);
    let low = free.as_ref().is_ok_and(|free| *free < FREE_BYTES_MIN);
    let mib = free.map_or(0, |free| free >> 20);
    check(
        "free space",
        when(low, CheckResult::Warning),
        format!("{mib} MiB are free in /var"),
        "2 GiB leave room for updates of the agent and its log",
        "make room on the file system of /var",
    )
}

fn ascii(inventory: &Inventory) -> Check {
    let parts = inventory.disks.iter().flat_map(|disk| &disk.partitions);
    let mut names: Vec<&str> = vec![&inventory.host_name];
    for part in parts {
        names.push(&part.device);
        names.extend(part.mount_points.iter().map(String::as_str));
    }
    let odd: Vec<&str> = names.into_iter().filter(|name| !name.is_ascii()).collect();
    check(
        "names in ASCII",
        when(!odd.is_empty(), CheckResult::Error),
        if odd.is_empty() {
            "host name, mount points and devices are ASCII".to_owned()
        } else {
            format!("not ASCII: {}", odd.join(", "))
        },
        "firmware and boot loaders at the target read ASCII only",
        "rename them",
    )
}

fn capture_mode(only: &[PathBuf]) -> Check {
    let files = !only.is_empty() && only.iter().all(|path| path.is_file());
    match capture::is_available() {
        Ok(()) if !files => check(
            "change tracking",
            CheckResult::Pass,
            "eBPF tracepoints are available",
            "",
            "",
        ),
        Ok(()) => check(
            "change tracking",
            CheckResult::Pass,
            "image files are compared (scan)",
            "",
            "",
        ),
        Err(error) => check(
            "change tracking",
            CheckResult::Warning,
            format!(
                "not by eBPF, disks are compared instead (scan): {}",
                crate::rt::chain(&error)
            ),
            "not root, or a kernel without BTF, or with eBPF switched off",
            "run the agent as root on Linux 5.17 or newer; scan reads every disk for every point",
        ),
    }
}

fn identities(inventory: &Inventory) -> Check {
    let nameless: Vec<&str> = inventory
        .disks
        .iter()
        .filter(|disk| disk.stable_id.is_empty())
        .map(|disk| disk.device.as_str())
        .collect();
    check(
        "disk identity",
        when(!nameless.is_empty(), CheckResult::Warning),
        if nameless.is_empty() {
            format!(
                "{} disks have an identity that outlives device names",
                inventory.disks.len()
            )
        } else {
            format!("no identity: {}", nameless.join(", "))
        },
        "no WWN, no serial number, and no partition table",
        "write a partition table to the disk, or leave it out",
    )
}

fn freezable(inventory: &Inventory) -> Check {
    let odd: Vec<String> = inventory
        .disks
        .iter()
        .flat_map(|disk| &disk.partitions)
        .filter(|part| !part.mount_points.is_empty() && !mounts::can_freeze(&part.file_system))
        .map(|part| format!("{} ({})", part.mount_points.join(", "), part.file_system))
        .collect();
    check(
        "file systems can be frozen",
        when(!odd.is_empty(), CheckResult::Warning),
        if odd.is_empty() {
            "all mounted file systems of the disks can be frozen".to_owned()
        } else {
            format!("cannot be frozen: {}", odd.join("; "))
        },
        "the kernel offers no freeze for this kind of file system",
        "none if it is seldom written to (an EFI system partition): points are made while it is quiet",
    )
}

fn sizes(inventory: &Inventory) -> Check {
    let large = inventory
        .disks
        .iter()
        .any(|disk| disk.size_bytes > DISK_BYTES_MAX);
    let many = inventory.disks.len() > crate::wire::DISKS_MAX;
    check(
        "disk size and count",
        when(large || many, CheckResult::Error),
        format!("{} disks", inventory.disks.len()),
        "the target takes 64 disks of 64 TiB at most",
        "leave disks out when replication is enabled",
    )
}

/// None is an error: replication goes on without app-consistent points.
fn hooks(quiesce: &Quiesce) -> Check {
    const NAME: &str = "hooks for app-consistent points";
    let warning = |message: String, causes: &str, action: &str| {
        check(NAME, CheckResult::Warning, message, causes, action)
    };
    let left = quiesce.left();
    if !left.is_empty() {
        return warning(
            format!("applications may be held: post is due for {}", left.join(", ")),
            "a point is being made at this moment, or an agent was killed while it made one",
            "if it stays: lifeboat agent quiesce resume",
        );
    }
    let found = match quiesce.find() {
        Ok(found) => found,
        Err(error) => {
            let (causes, action) = error.advice();
            return warning(crate::rt::chain(&error), causes, &action);
        }
    };
    let mut refused: Vec<String> = found
        .hooks
        .iter()
        .filter_map(|hook| Some(format!("{} {}", hook.name, hook.refused.as_ref()?)))
        .collect();
    refused.extend(
        found
            .refused
            .iter()
            .map(|why| format!("{} {why}", quiesce.folder.display())),
    );
    if !refused.is_empty() {
        return warning(
            format!("refused: {}", refused.join("; ")),
            "anybody could have the agent run what they like as root",
            "give files and folders to root and take the right to write from others",
        );
    }
    if !found.ignored.is_empty() {
        return warning(
            format!("not executable, so ignored: {}", found.ignored.join(", ")),
            "it was copied without its mode",
            "make it executable (chmod 755), or take it away",
        );
    }
    let names: Vec<&str> = found.hooks.iter().map(|hook| hook.name.as_str()).collect();
    let missing: Vec<&str> = SHIPPED
        .iter()
        .filter(|shipped| shipped.is_useful(Path::new("/")))
        .filter(|shipped| !names.iter().any(|name| name.contains(shipped.name)))
        .map(|shipped| shipped.name)
        .collect();
    if !missing.is_empty() {
        return warning(
            format!(
                "installed, and brought to rest by no hook: {}",
                missing.join(", ")
            ),
            "the hook was not enabled",
            "points are crash-consistent; for app-consistent ones: lifeboat agent quiesce enable",
        );
    }
    let message = if names.is_empty() {
        "none, and no server that a shipped hook is for".to_owned()
    } else {
        names.join(", ")
    };
    check(NAME, CheckResult::Pass, message, "", "")
}

fn hosts_file(inventory: &Inventory) -> Check {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mapped: Vec<&str> = hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?;
            words.any(|name| name == inventory.host_name).then_some(address)
        })
        .collect();
    let missing: Vec<&str> = inventory
        .nics
        .iter()
        .flat_map(|nic| &nic.addresses)
        .filter_map(|address| address.split('/').next())
        .filter(|address| !address.contains(':') && !mapped.contains(address))
        .collect();
    check(
        "/etc/hosts",
        when(!missing.is_empty(), CheckResult::Warning),
        if missing.is_empty() {
            "the host name is mapped to every address".to_owned()
        } else {
            format!("{} is not mapped to {}", inventory.host_name, missing.join(", "))
        },
        "services that look up their own name may not start without a name server at the target",
        "add the addresses to /etc/hosts",
    )
}

fn system_paths(inventory: &Inventory) -> Check {
    let table = mounts::table();
    let disks: Vec<&str> = inventory.disks.iter().map(|disk| disk.device.as_str()).collect();
    let missing: Vec<&str> = PROTECTED_PATHS
        .into_iter()
        .filter(|path| {
            let Some((_, source)) = table.iter().rfind(|(point, _)| point == Path::new(path)) else {
                return false; // not a mount of its own: it lies on its parent
            };
            !disks.iter().any(|disk| mounts::is_on(source, Path::new(disk)))
        })
        .collect();
    check(
        "system paths on protected disks",
        when(!missing.is_empty(), CheckResult::Error),
        if missing.is_empty() {
            "/, /boot, /usr, /usr/local, /var and /etc are on the machine's disks".to_owned()
        } else {
            format!("not on a disk that can be protected: {}", missing.join(", "))
        },
        "they lie on a network file system, a container's overlay, or a stack of devices",
        "move them to a disk of the machine",
    )
}

fn one_boot_disk(inventory: &Inventory) -> Check {
    let count = inventory.disks.iter().filter(|disk| disk.boot).count();
    check(
        "one boot disk",
        when(count != 1, CheckResult::Error),
        format!("{count} boot disks were found"),
        "/boot lies on no disk of the machine",
        "move /boot to one disk",
    )
}

/// Files of the initramfs are packed; names of modules stand in it as they are unless the kernel has them built in.
fn initramfs(inventory: &Inventory) -> Check {
    let kernel = &inventory.kernel;
    let builtin =
        std::fs::read_to_string(format!("/lib/modules/{kernel}/modules.builtin")).unwrap_or_default();
    let config = std::fs::read_to_string("/etc/initramfs-tools/initramfs.conf").unwrap_or_default();
    let all_modules = config.lines().any(|line| line.trim() == "MODULES=most");
    let listed = std::fs::read_to_string("/etc/initramfs-tools/modules").unwrap_or_default();
    let has = |module: &str| builtin.contains(module) || listed.lines().any(|line| line.trim() == module);
    let found = ["virtio_blk", "virtio_scsi", "nvme", "ahci"]
        .into_iter()
        .filter(|module| all_modules || has(module))
        .collect::<Vec<_>>();
    check(
        "drivers of the target's disk bus",
        when(found.is_empty(), CheckResult::Warning),
        if found.is_empty() {
            "no driver of a disk bus of the target was found in the initramfs".to_owned()
        } else {
            format!("the initramfs holds {}", found.join(", "))
        },
        "the initramfs was made for this machine's hardware only (MODULES=dep), or by another tool",
        "add virtio_blk and virtio_pci to /etc/initramfs-tools/modules and run update-initramfs -u, or try a test failover",
    )
}

fn ssh() -> Check {
    let enabled = ["ssh.service", "sshd.service"].into_iter().any(|unit| {
        Path::new("/etc/systemd/system/multi-user.target.wants")
            .join(unit)
            .exists()
    });
    check(
        "SSH starts at boot",
        when(!enabled, CheckResult::Warning),
        if enabled { "it does" } else { "it does not" },
        "no SSH server is installed, or it is not enabled",
        "enable it, if you want to log in after a failover: systemctl enable ssh",
    )
}

fn swap() -> Check {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let files: Vec<&str> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|path| !path.starts_with("/dev/"))
        .collect();
    check(
        "swap",
        when(!files.is_empty(), CheckResult::Warning),
        if files.is_empty() {
            "no swap file lies in a protected file system".to_owned()
        } else {
            format!("swap files: {}", files.join(", "))
        },
        "what is swapped out is written past the file system and replicated",
        "use a swap partition, which is left out of replication",
    )
}
