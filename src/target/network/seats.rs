//! Who sits in an isolated network, and which addresses follow from it. Pure.
//!
//! Every machine notes its NICs with the network when it is prepared, so that all of it follows from the notes: nothing is
//! handed out that has to be remembered, and a server that is started anew answers as the one before.
use super::super::{NicAddress, Segment};
use super::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// For machines without an address in a network without a range.
const RANGE: &str = "10.99.0.0/24";
/// Subnets of one network that the host takes part in.
const SUBNETS_MAX: usize = 32;

pub type Mac = [u8; 6];

pub fn mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// The NICs that a machine has in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seats {
    pub folder: PathBuf,
    pub seats: Vec<Seat>,
    pub segment: Segment,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seat {
    pub mac: String,
    pub address: Option<NicAddress>,
}

/// What a NIC is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub cidr: Cidr,
    /// Address of the host in its subnet: it hands the lease out, and probes come from it.
    pub server: Ipv4Addr,
    pub router: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of the host, one in each subnet.
    pub host: Vec<Cidr>,
    pub leases: BTreeMap<Mac, Lease>,
}

impl Addresses {
    /// The address of a NIC.
    pub fn of(&self, text: &str) -> Option<Ipv4Addr> {
        Some(self.leases.get(&mac(text)?)?.cidr.address)
    }
}

/// Addresses of all who sit in one network.
pub fn addresses(all: &[Seats]) -> Addresses {
    let segment = all.first().map(|first| first.segment.clone()).unwrap_or_default();
    let mut own: BTreeMap<Mac, NicAddress> = BTreeMap::new();
    let mut without: Vec<Mac> = Vec::new();
    for seat in all.iter().flat_map(|seats| &seats.seats) {
        match (mac(&seat.mac), &seat.address) {
            (Some(mac), Some(address)) => drop(own.insert(mac, address.clone())),
            (Some(mac), None) => without.push(mac),
            (None, _) => {}
        }
    }
    let mut used: HashSet<Ipv4Addr> = own.values().map(|address| address.cidr.address).collect();
    let range = segment.cidr.or_else(|| RANGE.parse().ok()).map(Cidr::network);
    let ranges = range
        .into_iter()
        .filter(|_| !without.is_empty() || own.is_empty() || segment.cidr.is_some());
    let mut subnets: Vec<Cidr> = Vec::new();
    for subnet in own.values().map(|address| address.cidr.network()).chain(ranges) {
        if !subnets.contains(&subnet) && subnets.len() < SUBNETS_MAX {
            subnets.push(subnet);
        }
    }
    let mut host: Vec<Cidr> = Vec::new();
    for subnet in subnets {
        let theirs = own
            .values()
            .filter(|address| address.cidr.network() == subnet)
            .filter_map(|address| address.gateway);
        let wanted = segment
            .gateway
            .into_iter()
            .chain(theirs)
            .find(|gateway| subnet.contains(*gateway) && !used.contains(gateway));
        // A gateway that is one of the machines stays that machine.
        let free = || {
            (0..subnet.hosts())
                .rev()
                .map(|place| subnet.host(place))
                .find(|one| !used.contains(one))
        };
        if let Some(address) = wanted.or_else(free) {
            used.insert(address);
            host.push(subnet.with(address));
        }
    }
    let server = |cidr: Cidr| {
        host.iter()
            .find(|one| one.network() == cidr.network())
            .map(|one| one.address)
    };
    let mut leases = BTreeMap::new();
    for (mac, address) in own {
        let Some(server) = server(address.cidr) else {
            continue;
        };
        let dns = if address.dns.is_empty() {
            segment.dns.clone()
        } else {
            address.dns
        };
        let lease = Lease {
            cidr: address.cidr,
            server,
            router: address
                .gateway
                .or(segment.gateway.filter(|one| address.cidr.contains(*one))),
            dns,
        };
        leases.insert(mac, lease);
    }
    without.sort_unstable();
    without.dedup();
    for mac in without {
        let Some(range) = range.filter(|range| range.hosts() > 0) else {
            break;
        };
        let Some(server) = server(range) else { break };
        // The same NIC gets the same address, whoever else is there, unless two fall on the same one.
        let hash = blake3::hash(&mac);
        let first = u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], 0]);
        let free = (0..range.hosts().min(1 << 16))
            .map(|step| range.host((first % range.hosts() + step) % range.hosts()))
            .find(|one| !used.contains(one));
        let Some(address) = free else { break };
        used.insert(address);
        let lease = Lease {
            cidr: range.with(address),
            server,
            router: segment.gateway.or(Some(server)),
            dns: segment.dns.clone(),
        };
        leases.insert(mac, lease);
    }
    Addresses { host, leases }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(mac: &str, address: Option<(&str, Option<&str>)>) -> Seat {
        Seat {
            mac: mac.into(),
            address: address.map(|(cidr, gateway)| NicAddress {
                cidr: cidr.parse().unwrap(),
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                dns: Vec::new(),
            }),
        }
    }

    fn network(seats: Vec<Seat>, segment: Segment) -> Addresses {
        addresses(&[Seats {
            folder: PathBuf::new(),
            seats,
            segment,
        }])
    }

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";

    fn lease<'a>(addresses: &'a Addresses, of: &str) -> &'a Lease {
        &addresses.leases[&mac(of).unwrap()]
    }

    #[test]
    fn machines_keep_their_own_and_the_host_stands_in_for_the_gateway() {
        let own = Some(("192.0.2.7/24", Some("192.0.2.1")));
        let found = network(
            vec![seat(A, own), seat(B, Some(("198.51.100.7/24", None)))],
            Segment::default(),
        );
        let host: Vec<String> = found.host.iter().map(Cidr::to_string).collect();
        assert_eq!(host, ["192.0.2.1/24", "198.51.100.254/24"]);
        let (a, b) = (lease(&found, A), lease(&found, B));
        assert_eq!(
            (a.cidr.to_string().as_str(), a.router),
            ("192.0.2.7/24", Some(Ipv4Addr::new(192, 0, 2, 1)))
        );
        assert_eq!((b.server, b.router), (Ipv4Addr::new(198, 51, 100, 254), None));
    }

    #[test]
    fn a_gateway_that_is_one_of_the_machines_stays_it() {
        let of = |address| Some((address, Some("192.0.2.1")));
        let found = network(
            vec![seat(A, of("192.0.2.1/24")), seat(B, of("192.0.2.2/24"))],
            Segment::default(),
        );
        assert_eq!(found.host[0].to_string(), "192.0.2.254/24");
        assert_eq!(lease(&found, B).router, Some(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn machines_without_an_address_get_one_of_the_range_and_always_the_same() {
        let segment = Segment {
            cidr: Some("203.0.113.0/29".parse().unwrap()),
            dns: vec![Ipv4Addr::new(203, 0, 113, 1)],
            gateway: Some(Ipv4Addr::new(203, 0, 113, 1)),
            dhcp: true,
        };
        let alone = network(vec![seat(A, None)], segment.clone());
        let both = network(vec![seat(B, None), seat(A, None)], segment.clone());
        assert_eq!(both.leases.len(), 2);
        assert_eq!(both.host[0].to_string(), "203.0.113.1/29");
        let all: HashSet<_> = both.leases.values().map(|lease| lease.cidr.address).collect();
        assert!(all.len() == 2 && !all.contains(&Ipv4Addr::new(203, 0, 113, 1)));
        assert_eq!(lease(&alone, A), lease(&both, A));
        // More than there is room for: the rest gets none, and nothing breaks.
        let many = (0..20)
            .map(|last| seat(&format!("52:54:00:00:01:{last:02x}"), None))
            .collect();
        assert_eq!(network(many, segment).leases.len(), 5);
        let none = network(vec![seat(A, None)], Segment::default());
        assert!(lease(&none, A).cidr.to_string().starts_with("10.99.0."));
    }

    #[test]
    fn hardware_addresses() {
        assert_eq!(mac("52:54:00:AB:cd:ef"), Some([0x52, 0x54, 0, 0xab, 0xcd, 0xef]));
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:00",
            "5:254:00:ab:cd:ef",
            "52:54:00:ab:cd:eg",
        ] {
            assert_eq!(mac(wrong), None, "{wrong}");
        }
    }
}
