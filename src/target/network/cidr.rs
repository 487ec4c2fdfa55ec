//! An IPv4 address with the length of its subnet, as people write it: `192.0.2.7/24`.
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    pub address: Ipv4Addr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address with the length of its subnet, such as 192.0.2.7/24")]
pub struct NotCidr(String);

impl Cidr {
    /// None: a subnet is 1 to 32 bits long.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (1..=32).contains(&prefix).then_some(Self { address, prefix })
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - u32::from(self.prefix)))
    }

    /// The subnet without its host part.
    pub fn network(self) -> Self {
        Self {
            address: Ipv4Addr::from(u32::from(self.address) & u32::from(self.mask())),
            prefix: self.prefix,
        }
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !u32::from(self.mask()))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & u32::from(self.mask()) == u32::from(self.network().address)
    }

    /// How many hosts it has room for.
    pub fn hosts(self) -> u32 {
        match self.prefix {
            31 | 32 => 0,
            prefix => (1u32 << (32 - u32::from(prefix)).min(31)) - 2,
        }
    }

    /// The host at a place, from 0 to `hosts` - 1.
    pub fn host(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(
            u32::from(self.network().address)
                .wrapping_add(1)
                .wrapping_add(place),
        )
    }

    /// The same subnet with another host.
    pub fn with(self, address: Ipv4Addr) -> Self {
        Self { address, ..self }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = NotCidr;

    fn from_str(text: &str) -> Result<Self, NotCidr> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let plain = prefix.bytes().all(|digit| digit.is_ascii_digit());
            Self::new(address.parse().ok()?, prefix.parse().ok().filter(|_| plain)?)
        });
        parsed.ok_or_else(|| NotCidr(text.to_owned()))
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_subnet() {
        let cidr: Cidr = "192.0.2.77/26".parse().unwrap();
        assert_eq!(cidr.to_string(), "192.0.2.77/26");
        assert_eq!(cidr.network().to_string(), "192.0.2.64/26");
        assert_eq!(cidr.mask(), Ipv4Addr::new(255, 255, 255, 192));
        assert_eq!(cidr.broadcast(), Ipv4Addr::new(192, 0, 2, 127));
        assert!(cidr.contains(Ipv4Addr::new(192, 0, 2, 64)) && !cidr.contains(Ipv4Addr::new(192, 0, 2, 128)));
        assert_eq!((cidr.hosts(), cidr.host(0)), (62, Ipv4Addr::new(192, 0, 2, 65)));
        assert_eq!(cidr.host(61), Ipv4Addr::new(192, 0, 2, 126));
        let all: Cidr = "10.0.0.1/1".parse().unwrap();
        assert_eq!(all.hosts(), i32::MAX as u32 - 1);
        assert_eq!("10.0.0.1/32".parse::<Cidr>().unwrap().hosts(), 0);
        for wrong in [
            "",
            "10.0.0.1",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "10.0.0/8",
            "10.0.0.1/+8",
            "::1/64",
            "10.0.0.1/",
        ] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
