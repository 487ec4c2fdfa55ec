//! Networks of the target site by name, which of them stands for a network of the source, and what the NICs of a machine that
//! is about to be started are connected to.
use super::machines::{machine, unknown_machine};
use super::{Vault, VaultError, json_column, vault_id};
use crate::block::MachineId;
use crate::recovery::Refusal;
use crate::rt::now_unix_nanos;
use crate::target::{Cidr, Network, Nic, NicAddress, Segment};
use crate::wire::facts::{Inventory, NicFacts};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Stands for every network of the source that has no mapping of its own.
pub const ANY_SOURCE: &str = "*";
/// Names of namespaces are made from it.
const NAME_LEN_MAX: usize = 32;
const DNS_MAX: usize = 4;
/// `IFNAMSIZ`, without the closing zero.
const BRIDGE_LEN_MAX: usize = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkKind {
    /// A bridge of the target's host that leads to the production network.
    ProductionBridge,
    /// Private to each machine, outgoing through the host.
    User,
    /// A bridge in a network namespace of its own: for each test failover or run of a plan another one.
    Isolated,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSettings {
    pub kind: NetworkKind,
    /// Of the host; of a production bridge only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// Of an isolated network: Lifeboat hands addresses out.
    #[serde(default = "yes")]
    pub dhcp: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    pub name: String,
    pub settings: NetworkSettings,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMapping {
    /// Subnet of the source, or [`ANY_SOURCE`].
    pub source: String,
    pub target: Option<String>,
    pub test: Option<String>,
}

/// A subnet that machines of the source are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNetwork {
    pub cidr: Cidr,
    pub machines: Vec<String>,
}

fn invalid<T>(field: &'static str, rule: &str) -> Result<T, VaultError> {
    Err(VaultError::Invalid {
        field,
        rule: rule.to_owned(),
    })
}

impl NetworkSettings {
    fn check(&self) -> Result<(), VaultError> {
        match (self.kind, &self.bridge) {
            (NetworkKind::ProductionBridge, Some(bridge)) => {
                let fine = |letter: char| letter.is_ascii_graphic() && !"/:%".contains(letter);
                if bridge.is_empty() || bridge.len() > BRIDGE_LEN_MAX || !bridge.chars().all(fine) {
                    return invalid(
                        "bridge",
                        "name of a bridge of the target's host, 1 to 15 characters",
                    );
                }
            }
            (NetworkKind::ProductionBridge, None) => {
                return invalid(
                    "bridge",
                    "a production bridge names a bridge of the target's host",
                );
            }
            (_, Some(_)) => return invalid("bridge", "only a network of the kind productionBridge has one"),
            (_, None) => {}
        }
        if let (Some(gateway), Some(cidr)) = (self.gateway, self.cidr)
            && !cidr.contains(gateway)
        {
            return invalid("gateway", "an address inside cidr");
        }
        if self.dns.len() > DNS_MAX {
            return invalid("dns", "at most 4");
        }
        if self.kind == NetworkKind::User
            && (self.cidr.is_some() || self.gateway.is_some() || !self.dns.is_empty())
        {
            return invalid(
                "kind",
                "a user network has its own addresses: leave out cidr, gateway and dns",
            );
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), VaultError> {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.starts_with('-') || !name.chars().all(fine) {
        return invalid("name", "1 to 32 letters, digits, hyphens and underscores");
    }
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<NetworkRow> {
    Ok(NetworkRow {
        name: row.get(0)?,
        settings: json_column(row, 1)?,
        revision: row.get(2)?,
    })
}

fn by_name(transaction: &Transaction<'_>, vault: i64, name: &str) -> Result<(i64, NetworkRow), VaultError> {
    transaction
        .prepare_cached("SELECT name, body, revision, id FROM networks WHERE vault = ?1 AND name = ?2")?
        .query_row(params![vault, name], |found| Ok((found.get(3)?, row(found)?)))
        .optional()?
        .ok_or_else(|| VaultError::NotFound {
            what: "network",
            name: name.to_owned(),
        })
}

/// The networks that every vault begins with.
pub(super) fn insert_defaults(transaction: &Transaction<'_>, vault: i64) -> Result<(), VaultError> {
    for (name, kind) in [("isolated", NetworkKind::Isolated), ("user", NetworkKind::User)] {
        let settings = NetworkSettings {
            kind,
            bridge: None,
            cidr: None,
            gateway: None,
            dns: Vec::new(),
            dhcp: true,
        };
        transaction.execute(
            "INSERT INTO networks (vault, name, body, created) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![vault, name, serde_json::to_string(&settings)?, now_unix_nanos()],
        )?;
    }
    Ok(())
}

fn mappings(transaction: &Transaction<'_>, vault: i64) -> Result<Vec<NetworkMapping>, VaultError> {
    let rows = transaction
        .prepare_cached(
            "SELECT source, (SELECT name FROM networks WHERE id = target), (SELECT name FROM networks WHERE id = test)
             FROM network_mappings WHERE vault = ?1 ORDER BY source",
        )?
        .query_map([vault], |row| {
            Ok(NetworkMapping {
                source: row.get(0)?,
                target: row.get(1)?,
                test: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}

/// Of a NIC's addresses the one that others reach it by.
pub fn first_ipv4(nic: &NicFacts) -> Option<Cidr> {
    let of = |text: &String| text.parse::<Cidr>().ok();
    nic.addresses
        .iter()
        .filter_map(of)
        .find(|cidr| !cidr.address.is_loopback() && !cidr.address.is_link_local())
}

/// The mapping of the subnet that the NIC is in; the one for all others where it has none.
fn mapping_of<'a>(mappings: &'a [NetworkMapping], nic: &NicFacts) -> Option<&'a NetworkMapping> {
    let subnet = first_ipv4(nic).map(|cidr| cidr.network().to_string());
    let named = |source: &str| mappings.iter().find(|mapping| mapping.source == source);
    subnet.as_deref().and_then(named).or_else(|| named(ANY_SOURCE))
}

/// At a failover, and at a test failover.
pub(super) type Mapped = (Option<Network>, Option<Network>);

/// Networks of a NIC at a failover and at a test failover, where a mapping says so.
pub(super) fn mapped(
    transaction: &Transaction<'_>,
    vault: i64,
) -> Result<impl Fn(&NicFacts) -> Mapped + use<>, VaultError> {
    let mappings = mappings(transaction, vault)?;
    Ok(move |nic: &NicFacts| {
        let named = |name: &Option<String>| name.clone().map(|name| Network::Named { name });
        match mapping_of(&mappings, nic) {
            Some(mapping) => (named(&mapping.target), named(&mapping.test)),
            None => (None, None),
        }
    })
}

/// The address that a NIC has at the source; known by its hardware address only.
fn source_address(inventory: &Inventory, nic: &Nic) -> Option<NicAddress> {
    let mac = nic.mac.as_ref()?;
    let facts = inventory
        .nics
        .iter()
        .find(|facts| facts.name != "lo" && facts.mac.eq_ignore_ascii_case(mac))?;
    let cidr = first_ipv4(facts)?;
    let gateway = facts.default_gateway.as_ref().and_then(|text| text.parse().ok());
    Some(NicAddress {
        cidr,
        gateway: gateway.filter(|gateway| cidr.contains(*gateway)),
        dns: Vec::new(),
    })
}

/// What the NICs are connected to, as the vault's networks are now. In an isolated network a NIC without an address of its
/// own gets the one that it has at the source.
pub(super) fn resolve_nics(
    transaction: &Transaction<'_>,
    id: MachineId,
    nics: &[Nic],
) -> Result<Result<Vec<Nic>, Refusal>, VaultError> {
    let known = machine(transaction, id)?.ok_or_else(|| unknown_machine(id))?;
    let vault = vault_id(transaction, &known.vault)?;
    let inventory = known.inventory.unwrap_or_default();
    let mut resolved = nics.to_vec();
    for nic in &mut resolved {
        if let Network::Named { name } = &nic.network {
            let (number, found) = match by_name(transaction, vault, name) {
                Ok(found) => found,
                Err(VaultError::NotFound { .. }) => {
                    return Ok(Err(Refusal {
                        code: "NoSuchNetwork".into(),
                        message: format!("There is no network {name} in the vault."),
                        possible_causes: "It was removed after the machine's target settings named it.".into(),
                        recommended_action: "Choose another network in the target settings, or make it again: lifeboat network create.".into(),
                    }));
                }
                Err(error) => return Err(error),
            };
            let settings = found.settings;
            // Of another vault, it is another network. By its number: names may hold what separates.
            nic.network = match settings.kind {
                NetworkKind::ProductionBridge => Network::Bridge {
                    name: settings.bridge.unwrap_or_default(),
                },
                NetworkKind::User => Network::User { forwards: Vec::new() },
                NetworkKind::Isolated => Network::Isolated {
                    name: format!("{}.{number}", found.name),
                    segment: Segment {
                        cidr: settings.cidr,
                        gateway: settings.gateway,
                        dns: settings.dns,
                        dhcp: settings.dhcp,
                    },
                },
            };
        }
        if matches!(nic.network, Network::Isolated { .. }) && nic.address.is_none() {
            nic.address = source_address(&inventory, nic);
        }
    }
    Ok(Ok(resolved))
}

impl Vault {
    /// By name.
    pub fn networks(&self, vault: &str) -> Result<Vec<NetworkRow>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached("SELECT name, body, revision FROM networks WHERE vault = ?1 ORDER BY name")?
                .query_map([vault], row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn network(&self, vault: &str, name: &str) -> Result<NetworkRow, VaultError> {
        self.read(|transaction| Ok(by_name(transaction, vault_id(transaction, vault)?, name)?.1))
    }

    pub fn create_network(
        &self,
        vault: &str,
        name: &str,
        settings: &NetworkSettings,
    ) -> Result<NetworkRow, VaultError> {
        check_name(name)?;
        settings.check()?;
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let made = transaction.execute(
                "INSERT INTO networks (vault, name, body, created) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![vault, name, serde_json::to_string(settings)?, now_unix_nanos()],
            )?;
            if made == 0 {
                return Err(VaultError::refused(
                    "NetworkExists",
                    format!("there is a network {name} already"),
                    "it was made before",
                    "choose another name, or see it: lifeboat network list",
                ));
            }
            Ok(by_name(transaction, vault, name)?.1)
        })
    }

    /// From the next failover on.
    pub fn update_network(
        &self,
        vault: &str,
        name: &str,
        settings: &NetworkSettings,
        revision: Option<u64>,
    ) -> Result<NetworkRow, VaultError> {
        settings.check()?;
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let (id, known) = by_name(transaction, vault, name)?;
            refuse_stale(&known, revision)?;
            transaction.execute(
                "UPDATE networks SET body = ?2, revision = revision + 1 WHERE id = ?1",
                params![id, serde_json::to_string(settings)?],
            )?;
            Ok(by_name(transaction, vault, name)?.1)
        })
    }

    /// Refused while a mapping or a machine's target settings name it.
    pub fn remove_network(&self, vault: &str, name: &str, revision: Option<u64>) -> Result<(), VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let (id, known) = by_name(transaction, vault, name)?;
            refuse_stale(&known, revision)?;
            let mut users: Vec<String> = mappings(transaction, vault)?
                .into_iter()
                .filter(|mapping| {
                    [&mapping.target, &mapping.test].into_iter().flatten().any(|one| *one == known.name)
                })
                .map(|mapping| format!("the mapping of {}", mapping.source))
                .collect();
            let machines: Vec<String> = transaction
                .prepare(
                    "SELECT DISTINCT machines.name FROM items JOIN machines ON machines.id = items.machine,
                         json_each(json_array(json_extract(items.body, '$.target.nics'), json_extract(items.body, '$.target.testNics'))) AS list,
                         json_each(list.value) AS nic
                     WHERE machines.vault = ?1 AND json_extract(nic.value, '$.network.kind') = 'named'
                         AND json_extract(nic.value, '$.network.name') = ?2 COLLATE NOCASE
                     ORDER BY machines.name LIMIT 10",
                )?
                .query_map(params![vault, known.name], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            users.extend(machines.into_iter().map(|machine| format!("the target settings of {machine}")));
            let plans: Vec<String> = transaction
                .prepare(
                    "SELECT name FROM plans WHERE vault = ?1 AND json_extract(body, '$.testNetwork') = ?2 COLLATE NOCASE
                     ORDER BY name LIMIT 10",
                )?
                .query_map(params![vault, known.name], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            users.extend(plans.into_iter().map(|plan| format!("the recovery plan {plan}")));
            if !users.is_empty() {
                return Err(VaultError::refused(
                    "NetworkInUse",
                    format!("the network {} is in use: {}", known.name, users.join(", ")),
                    "a failover would have nowhere to connect these machines",
                    "map them to another network first: lifeboat network map; lifeboat machine show NAME",
                ));
            }
            transaction.execute("DELETE FROM networks WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    /// Mappings, and the subnets that the vault's machines are in.
    pub fn network_mappings(
        &self,
        vault: &str,
    ) -> Result<(Vec<NetworkMapping>, Vec<SourceNetwork>), VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let mut seen: Vec<SourceNetwork> = Vec::new();
            let mut statement = transaction.prepare_cached(
                "SELECT name, inventory FROM machines
                 WHERE vault = ?1 AND removed IS NULL AND inventory IS NOT NULL ORDER BY name",
            )?;
            let machines = statement.query_map([vault], |row| {
                Ok((row.get::<_, String>(0)?, json_column::<Inventory>(row, 1)?))
            })?;
            for machine in machines {
                let (name, inventory) = machine?;
                for cidr in inventory
                    .nics
                    .iter()
                    .filter(|nic| nic.name != "lo")
                    .filter_map(first_ipv4)
                {
                    let cidr = cidr.network();
                    match seen.iter_mut().find(|one| one.cidr == cidr) {
                        Some(one) if one.machines.contains(&name) => {}
                        Some(one) => one.machines.push(name.clone()),
                        None => seen.push(SourceNetwork {
                            cidr,
                            machines: vec![name.clone()],
                        }),
                    }
                }
            }
            seen.sort_by_key(|one| one.cidr);
            Ok((mappings(transaction, vault)?, seen))
        })
    }

    /// Which networks stand for one of the source; both None: the mapping goes. With `apply` also for machines that are
    /// replicated already, whose NICs are in it. Answers the names of those that were changed.
    pub fn map_network(
        &self,
        vault: &str,
        mapping: &NetworkMapping,
        apply: bool,
    ) -> Result<Vec<String>, VaultError> {
        let source = match mapping.source.as_str() {
            ANY_SOURCE => ANY_SOURCE.to_owned(),
            text => match text.parse::<Cidr>() {
                Ok(cidr) => cidr.network().to_string(),
                Err(_) => return invalid("source", "a subnet such as 192.0.2.0/24, or *"),
            },
        };
        let name = vault;
        self.write(|transaction| {
            let vault = vault_id(transaction, name)?;
            let id = |name: &Option<String>| -> Result<Option<i64>, VaultError> {
                name.as_ref().map(|name| Ok(by_name(transaction, vault, name)?.0)).transpose()
            };
            let (target, test) = (id(&mapping.target)?, id(&mapping.test)?);
            if let Some(test) = &mapping.test
                && by_name(transaction, vault, test)?.1.settings.kind != NetworkKind::Isolated
            {
                return invalid("test", "a test failover goes into an isolated network: what is started for it must not reach production");
            }
            if target.is_none() && test.is_none() {
                transaction.execute(
                    "DELETE FROM network_mappings WHERE vault = ?1 AND source = ?2",
                    params![vault, source],
                )?;
                return Ok(Vec::new());
            }
            transaction.execute(
                "INSERT INTO network_mappings (vault, source, target, test) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (vault, source) DO UPDATE SET target = ?3, test = ?4",
                params![vault, source, target, test],
            )?;
            if !apply {
                return Ok(Vec::new());
            }
            super::items::map_items(transaction, vault, &source)
        })
    }
}

/// Puts the NICs that the mapping is for into its networks.
pub(super) fn remap(
    transaction: &Transaction<'_>,
    vault: i64,
    source: &str,
    inventory: &Inventory,
    target: &mut crate::recovery::TargetSettings,
) -> Result<bool, VaultError> {
    let mappings = mappings(transaction, vault)?;
    let before = target.clone();
    for (nics, test) in [(&mut target.nics, false), (&mut target.test_nics, true)] {
        for (place, nic) in nics.iter_mut().enumerate() {
            let mut real = inventory.nics.iter().filter(|facts| facts.name != "lo");
            let facts = match &nic.mac {
                Some(mac) => real.find(|facts| facts.mac.eq_ignore_ascii_case(mac)),
                None => real.nth(place),
            };
            let facts = facts.cloned().unwrap_or_default();
            let mapping = mapping_of(&mappings, &facts).filter(|found| found.source == source);
            let name = mapping.and_then(|found| {
                if test {
                    found.test.clone()
                } else {
                    found.target.clone()
                }
            });
            if let Some(name) = name {
                nic.network = Network::Named { name };
            }
        }
    }
    Ok(before != *target)
}

fn refuse_stale(known: &NetworkRow, revision: Option<u64>) -> Result<(), VaultError> {
    if revision.is_some_and(|revision| revision != known.revision) {
        return Err(VaultError::Conflict {
            what: "network",
            name: known.name.clone(),
        });
    }
    Ok(())
}
