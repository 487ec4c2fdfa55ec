//! Sets a guest's address in its configuration: in the branch that it is about to boot from, never in replicated data.
//!
//! The disk is offered as a file by `qemu-storage-daemon` over FUSE, and its ext4 file systems are changed by `e2fsck`, which
//! replays the journal first, and `debugfs`: nothing is mounted by this host's kernel, so a guest's file system is never its to
//! trust. What is not understood is left alone and named. Doing it twice is the same as once.
//!
//! What the machine writes at the target comes home with it, and these files with it. So each change is noted in the machine's
//! folder before it is made, and taken back when the machine is stopped to go home: there it has the addresses that it left with.
mod disk;
mod settings;
#[cfg(test)]
mod tests;

use super::{DiskAttachment, MachineSpec, Network, NicAddress, TargetError};
use disk::{Content, Ext, Offer, begins, content, io_of};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// What was changed in the guest, in the machine's folder.
const NOTES: &str = "guest-files.json";
const NETWORKD_ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
const NETWORK_MANAGER_ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service";
const INTERFACES: &str = "/etc/network/interfaces";
const CLOUD_INIT: &str = "/etc/cloud/cloud.cfg.d/99-lifeboat-network.cfg";
/// Ways to configure a network that are not changed from here, by what tells of them.
const OTHERS: [(&str, &str); 5] = [
    ("/etc/wicked", "wicked"),
    ("/etc/sysconfig/network-scripts", "ifcfg files"),
    ("/etc/connman", "ConnMan"),
    ("/etc/dhcpcd.conf", "dhcpcd"),
    ("/etc/netctl", "netctl"),
];

/// What is understood, in words.
pub const UNDERSTOOD: &str = "netplan, systemd-networkd, NetworkManager or ifupdown on ext4";

/// A file of the guest that was changed, and how to take it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    export: String,
    /// Of the file system on the disk, in bytes.
    begin: u64,
    path: String,
    mode: u32,
    /// In hex; None: it was not there.
    before: Option<String>,
    after: String,
}

/// What was done, and what was found that is not changed from here.
#[derive(Default)]
struct Findings {
    done: Vec<String>,
    left: Vec<String>,
}

/// The NICs whose addresses nobody but the guest itself can set.
fn wanted(spec: &MachineSpec) -> Vec<(usize, NicAddress)> {
    let own = |network: &Network| match network {
        Network::Bridge { .. } => true,
        Network::Isolated { segment, .. } => !segment.dhcp,
        _ => false,
    };
    let nics = spec.nics.iter().enumerate();
    nics.filter(|(_, nic)| own(&nic.network))
        .filter_map(|(place, nic)| Some((place, nic.address.clone()?)))
        .collect()
}

/// In words what was set, or why nothing was; None: no NIC has an address that is to be set.
pub fn configure(spec: &MachineSpec) -> Option<String> {
    let nics = wanted(spec);
    if nics.is_empty() {
        return None;
    }
    let mut all = Findings::default();
    for disk in &spec.disks {
        if let Err(error) = on_disk(spec, disk, &nics, &mut all) {
            all.left.push(error.to_string());
        }
    }
    all.left.dedup();
    if !all.done.is_empty() {
        return Some(format!("In its branch: {}.", all.done.join("; ")));
    }
    if all.left.is_empty() {
        all.left
            .push(format!("no network configuration was found of {UNDERSTOOD}"));
    }
    Some(format!(
        "Its addresses are not set ({}); the guest keeps its own, or asks a DHCP server",
        all.left.join("; ")
    ))
}

/// The machine is stopped. At home it is to find its configuration as it was; `home` false: it goes on at the target after
/// all. A file that was changed since by somebody else is left as it is. In words; None: there is nothing to change.
pub fn readdress(spec: &MachineSpec, home: bool) -> Option<String> {
    let notes = notes(spec);
    if notes.is_empty() {
        return None;
    }
    let mut kept = Vec::new();
    let mut trouble = None;
    for disk in &spec.disks {
        let own: Vec<&Note> = notes.iter().filter(|note| note.export == disk.export).collect();
        if own.is_empty() {
            continue;
        }
        match turn(spec, disk, &own, home) {
            Ok(left) => kept.extend(left),
            Err(error) => trouble = Some(error.to_string()),
        }
    }
    Some(match (trouble, kept.is_empty(), home) {
        (Some(why), ..) => format!(
            "Its network configuration could not be changed back ({why}); it still has the addresses of the target"
        ),
        (None, false, _) => format!(
            "Changed at the target by somebody else and kept: {}",
            kept.join(", ")
        ),
        (None, true, true) => "Its network configuration is as it was at home".to_owned(),
        (None, true, false) => "Its network configuration is that of the target again".to_owned(),
    })
}

/// Paths that are as somebody else left them.
fn turn(
    spec: &MachineSpec,
    disk: &DiskAttachment,
    notes: &[&Note],
    home: bool,
) -> Result<Vec<String>, TargetError> {
    let offer = Offer::new(spec, disk)?;
    let mut kept = Vec::new();
    let mut mended = None;
    for note in notes {
        let ext = Ext::at(&offer, note.begin, spec);
        if mended != Some(note.begin) && !ext.mend()? {
            return Err(TargetError::Refused("its file system is damaged".to_owned()));
        }
        mended = Some(note.begin);
        let after = Some(bytes(&note.after));
        let before = note.before.as_deref().map(bytes);
        let (from, to) = if home { (after, before) } else { (before, after) };
        let there = ext.read(&note.path)?;
        if there == to {
            continue;
        }
        match to {
            _ if there != from => kept.push(note.path.clone()),
            Some(content) => ext.write(&note.path, &content, note.mode)?,
            None => ext.remove(&note.path)?,
        }
    }
    offer.sync()?;
    Ok(kept)
}

/// Written by [`Place::put`] only.
fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap_or_default()
}

fn notes_path(spec: &MachineSpec) -> PathBuf {
    spec.folder.join(NOTES)
}

fn notes(spec: &MachineSpec) -> Vec<Note> {
    let text = std::fs::read(notes_path(spec)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn keep(spec: &MachineSpec, notes: &[Note]) -> Result<(), TargetError> {
    let (path, fresh) = (notes_path(spec), spec.folder.join("guest-files.new"));
    let text = serde_json::to_vec(notes).unwrap_or_default();
    File::create(&fresh)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .and_then(|()| File::open(&spec.folder)?.sync_all())
        .map_err(io_of("write", &path))
}

/// A file system of the guest, and where changes of it are noted.
struct Place<'a> {
    spec: &'a MachineSpec,
    export: &'a str,
    begin: u64,
    ext: Ext,
}

impl Place<'_> {
    /// Changes a file, or makes it with this mode; noted first.
    fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), TargetError> {
        let before = self.ext.read(path)?;
        let mode = self.ext.mode(path)?.unwrap_or(mode);
        let mut all = notes(self.spec);
        let known = all
            .iter_mut()
            .find(|note| note.export == self.export && note.begin == self.begin && note.path == path);
        let after = hex::encode(content);
        match known {
            // The first one knows how it was at home.
            Some(note) => note.after = after,
            None => all.push(Note {
                export: self.export.to_owned(),
                begin: self.begin,
                path: path.to_owned(),
                mode,
                before: before.map(hex::encode),
                after,
            }),
        }
        keep(self.spec, &all)?;
        self.ext.write(path, content, mode)
    }

    fn folder(&self, path: &str) -> Result<Vec<(String, String)>, TargetError> {
        let mut files = Vec::new();
        for name in self.ext.list(path)? {
            let path = format!("{path}/{name}");
            if let Some(content) = self.ext.read(&path)? {
                files.push((path, String::from_utf8_lossy(&content).into_owned()));
            }
        }
        Ok(files)
    }
}

fn on_disk(
    spec: &MachineSpec,
    disk: &DiskAttachment,
    nics: &[(usize, NicAddress)],
    all: &mut Findings,
) -> Result<(), TargetError> {
    let offer = Offer::new(spec, disk)?;
    for begin in begins(&offer)? {
        match content(&offer, begin) {
            Content::Ext => {}
            Content::Other(what) => {
                all.left
                    .push(format!("the disk holds {what}, which is not changed from here"));
                continue;
            }
            Content::Unknown => continue,
        }
        let ext = Ext::at(&offer, begin, spec);
        // Else the guest's kernel would write its journal over what is changed here.
        if !ext.mend()? || !ext.has("/etc")? {
            continue;
        }
        let place = Place {
            spec,
            export: &disk.export,
            begin,
            ext,
        };
        in_file_system(&place, nics, all)?;
    }
    offer.sync()
}

fn in_file_system(
    place: &Place,
    nics: &[(usize, NicAddress)],
    all: &mut Findings,
) -> Result<(), TargetError> {
    let ext = &place.ext;
    if ext.has("/etc/lab/address")? {
        if let Some((_, address)) = nics.first() {
            place.put(
                "/etc/lab/address",
                format!("{}\n", address.cidr).as_bytes(),
                0o644,
            )?;
            all.done.push(format!("the address is set to {}", address.cidr));
        }
        return Ok(());
    }
    let netplan: Vec<String> = place
        .folder("/etc/netplan")?
        .into_iter()
        .filter(|(path, _)| path.ends_with(".yaml"))
        .map(|(_, text)| text)
        .collect();
    if !netplan.is_empty() {
        return by_netplan(place, &netplan, nics, all);
    }
    if ext.has("/etc/systemd/network")? && ext.has(NETWORKD_ENABLED)? {
        if ext
            .list("/etc/systemd/network")?
            .iter()
            .any(|name| name.ends_with(".netdev"))
        {
            all.left.push(joined_up("systemd-networkd"));
            return Ok(());
        }
        return by_networkd(place, "systemd-networkd", nics, all);
    }
    if by_ifupdown(place, nics, all)? {
        return Ok(());
    }
    if ext.has(NETWORK_MANAGER_ENABLED)? {
        let profiles = place.folder("/etc/NetworkManager/system-connections")?;
        if profiles
            .iter()
            .any(|(_, text)| settings::keyfile_is_joined_up(text))
        {
            all.left.push(joined_up("NetworkManager"));
            return Ok(());
        }
        return by_network_manager(place, "NetworkManager", nics, all);
    }
    for (path, name) in OTHERS {
        if ext.has(path)? {
            all.left
                .push(format!("the guest uses {name}, which is not changed from here"));
        }
    }
    Ok(())
}

/// An address of its own would tear a NIC out of what it is a part of.
fn joined_up(who: &str) -> String {
    format!("{who} joins NICs to bonds, bridges or VLANs here, which are not changed from here")
}

/// What netplan makes of its files is read behind ours, whatever is in them and whoever writes them: cloud-init too.
fn by_netplan(
    place: &Place,
    files: &[String],
    nics: &[(usize, NicAddress)],
    all: &mut Findings,
) -> Result<(), TargetError> {
    if files.iter().any(|text| settings::netplan_is_not_understood(text)) {
        all.left
            .push("netplan's files are not understood: they are in flow style".to_owned());
        return Ok(());
    }
    if files.iter().any(|text| settings::netplan_is_joined_up(text)) {
        all.left.push(joined_up("netplan"));
        return Ok(());
    }
    if files
        .iter()
        .any(|text| settings::netplan_uses_network_manager(text))
    {
        return by_network_manager(place, "netplan's NetworkManager", nics, all);
    }
    by_networkd(place, "netplan's systemd-networkd", nics, all)
}

/// A file of ours for each NIC: its path, what is in it, its mode.
fn by_files(
    place: &Place,
    who: &str,
    nics: &[(usize, NicAddress)],
    all: &mut Findings,
    file: impl Fn(usize, &str, &NicAddress) -> (String, String, u32),
) -> Result<(), TargetError> {
    for (number, address) in nics {
        let mac = place.spec.mac(*number);
        let (path, text, mode) = file(*number, &mac, address);
        place.put(&path, text.as_bytes(), mode)?;
        all.done
            .push(format!("{who} sets {mac} to {} ({path})", address.cidr));
    }
    Ok(())
}

fn by_networkd(
    place: &Place,
    who: &str,
    nics: &[(usize, NicAddress)],
    all: &mut Findings,
) -> Result<(), TargetError> {
    by_files(place, who, nics, all, |number, mac, address| {
        let path = format!("/etc/systemd/network/00-lifeboat-{number}.network");
        (path, settings::networkd(mac, address), 0o644)
    })
}

fn by_network_manager(
    place: &Place,
    who: &str,
    nics: &[(usize, NicAddress)],
    all: &mut Findings,
) -> Result<(), TargetError> {
    by_files(place, who, nics, all, |number, mac, address| {
        let path = format!("/etc/NetworkManager/system-connections/lifeboat-{number}.nmconnection");
        // It reads no profile that others may read.
        (path, settings::keyfile(number, mac, address), 0o600)
    })
}

/// False: ifupdown has none of these NICs.
fn by_ifupdown(place: &Place, nics: &[(usize, NicAddress)], all: &mut Findings) -> Result<bool, TargetError> {
    let Some(main) = place.ext.read(INTERFACES)? else {
        return Ok(false);
    };
    let mut files = vec![(INTERFACES.to_owned(), String::from_utf8_lossy(&main).into_owned())];
    if settings::reads_more(&files[0].1) {
        files.extend(place.folder("/etc/network/interfaces.d")?);
    }
    if files
        .iter()
        .any(|(_, text)| settings::ifupdown_is_joined_up(text))
    {
        all.left.push(joined_up("ifupdown"));
        return Ok(true);
    }
    let mut changed = vec![false; files.len()];
    let mut done = Vec::new();
    for (number, address) in nics {
        let mut left = *number;
        for ((_, text), changed) in files.iter_mut().zip(&mut changed) {
            if let Some((name, fresh)) = settings::ifupdown(text, left, address) {
                *text = fresh;
                *changed = true;
                done.push(format!("ifupdown sets {name} to {}", address.cidr));
                break;
            }
            left -= settings::stanzas(text).len().min(left);
        }
    }
    if done.is_empty() {
        return Ok(false);
    }
    // It would write these files anew when it finds itself somewhere else.
    if place.ext.has("/etc/cloud/cloud.cfg")? && !place.ext.has("/etc/cloud/cloud-init.disabled")? {
        let mut told = place.folder("/etc/cloud/cloud.cfg.d")?;
        told.retain(|(path, text)| path != CLOUD_INIT && settings::cloud_init_leaves_networks(text));
        if told.is_empty() {
            place.put(CLOUD_INIT, b"network: {config: disabled}\n", 0o644)?;
            done.push("cloud-init is told to leave the network alone".to_owned());
        }
    }
    for ((path, text), _) in files.iter().zip(&changed).filter(|(_, changed)| **changed) {
        place.put(path, text.as_bytes(), 0o644)?;
    }
    all.done.extend(done);
    Ok(true)
}
