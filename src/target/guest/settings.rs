//! Files of those who configure a guest's network: what they say, and what they are to say. Texts only.
use crate::target::NicAddress;

/// `systemd.network(5)`. By the hardware address, so that the NIC's name at the target does not matter; the first file by its
/// name that matches a NIC counts, in whichever folder it is.
pub fn networkd(mac: &str, address: &NicAddress) -> String {
    let mut text = format!(
        "[Match]\nMACAddress={mac}\n\n[Network]\nDHCP=no\nAddress={}\n",
        address.cidr
    );
    if let Some(gateway) = address.gateway {
        text += &format!("Gateway={gateway}\n");
    }
    for dns in &address.dns {
        text += &format!("DNS={dns}\n");
    }
    text
}

/// `nm-settings-keyfile(5)`. Of the profiles for a NIC the one of the highest priority is taken.
pub fn keyfile(number: usize, mac: &str, address: &NicAddress) -> String {
    let gateway = address
        .gateway
        .map(|gateway| format!(",{gateway}"))
        .unwrap_or_default();
    let mut text = format!(
        "[connection]\nid=lifeboat-{number}\ntype=ethernet\nautoconnect-priority=999\n\n[ethernet]\nmac-address={mac}\n\n\
         [ipv4]\nmethod=manual\naddress1={}{gateway}\n",
        address.cidr
    );
    if !address.dns.is_empty() {
        let dns: Vec<String> = address.dns.iter().map(|dns| format!("{dns};")).collect();
        text += &format!("dns={}\n", dns.concat());
    }
    text + "\n[ipv6]\nmethod=auto\n"
}

/// Key and value of the lines of a YAML or keyfile text that have both, or a key alone.
fn pairs(text: &str, between: char) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .filter(|line| !line.starts_with('#'))
        .filter_map(move |line| line.split_once(between))
        .map(|(key, value)| (key.trim(), value.trim().trim_matches(['"', '\''])))
}

/// `netplan(5)`: NICs are parts of something else.
pub fn netplan_is_joined_up(text: &str) -> bool {
    const KINDS: [&str; 8] = [
        "bonds",
        "bridges",
        "vlans",
        "vrfs",
        "tunnels",
        "modems",
        "wifis",
        "dummy-devices",
    ];
    pairs(text, ':').any(|(key, _)| KINDS.contains(&key.trim_matches(['"', '\''])))
}

/// Flow style, which hides what it is about from a look at lines.
pub fn netplan_is_not_understood(text: &str) -> bool {
    pairs(text, ':').any(|(key, value)| key == "network" && !value.is_empty())
}

pub fn netplan_uses_network_manager(text: &str) -> bool {
    pairs(text, ':').any(|pair| pair == ("renderer", "NetworkManager"))
}

pub fn keyfile_is_joined_up(text: &str) -> bool {
    let part = |key: &str| ["master", "controller", "slave-type", "port-type"].contains(&key);
    pairs(text, '=')
        .any(|(key, value)| part(key) || key == "type" && ["bond", "bridge", "vlan", "team"].contains(&value))
}

/// A module's option in `cloud.cfg.d`: it renders no network then.
pub fn cloud_init_leaves_networks(text: &str) -> bool {
    let plain: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::chars)
        .filter(|letter| !letter.is_whitespace())
        .collect();
    plain.contains("network:{config:disabled}") || plain.contains("network:config:disabled")
}

const BEGINS: [&str; 7] = [
    "iface",
    "auto",
    "mapping",
    "source",
    "source-directory",
    "no-auto-down",
    "no-scripts",
];

fn begins(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    BEGINS.contains(&word) || word.starts_with("allow-")
}

/// Line and NIC of each stanza that is no loopback, `interfaces(5)`.
pub fn stanzas(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .filter_map(|(number, line)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["iface", name, "inet", method, ..] if *name != "lo" && *method != "loopback" => {
                    Some((number, *name))
                }
                _ => None,
            }
        })
        .collect()
}

/// Files of `interfaces.d` count too.
pub fn reads_more(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.starts_with("source"))
            && words.next().is_some_and(|from| from.contains("interfaces.d"))
    })
}

pub fn ifupdown_is_joined_up(text: &str) -> bool {
    text.lines().any(|line| {
        let word = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .replace('_', "-");
        word.starts_with("bond-") || word == "bridge-ports" || word == "vlan-raw-device"
    })
}

/// The stanza of the NIC at that place among those that are no loopback, with the address in place of whatever it had. None:
/// there is no such stanza. The name stays: a NIC that is named otherwise at the target does not get it.
pub fn ifupdown(text: &str, place: usize, address: &NicAddress) -> Option<(String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let (from, name) = *stanzas(text).get(place)?;
    let to = lines[from + 1..]
        .iter()
        .position(|line| begins(line))
        .map_or(lines.len(), |len| from + 1 + len);
    let mut changed: Vec<String> = lines[..from].iter().map(|line| (*line).to_owned()).collect();
    changed.push(format!("iface {name} inet static"));
    // Not as one word: busybox wants them apart.
    changed.push(format!("    address {}", address.cidr.address));
    changed.push(format!("    netmask {}", address.cidr.mask()));
    changed.extend(address.gateway.map(|gateway| format!("    gateway {gateway}")));
    if !address.dns.is_empty() {
        let dns: Vec<String> = address.dns.iter().map(ToString::to_string).collect();
        changed.push(format!("    dns-nameservers {}", dns.join(" ")));
    }
    changed.push(String::new());
    changed.extend(lines[to..].iter().map(|line| (*line).to_owned()));
    Some((name.to_owned(), changed.join("\n") + "\n"))
}
