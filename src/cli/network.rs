//! `lifeboat network`: networks of the target site, and which of them stand for those of the source.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, facts, hint, say_json, segment, table, text};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat network list
  lifeboat network create drill --kind isolated --cidr 192.0.2.0/24
  lifeboat network create lan --kind production-bridge --bridge br0
  lifeboat network map 192.168.1.0/24 --target lan --test drill
  lifeboat network preview web1 --test
  lifeboat network preview web1 --operation failback")]
pub struct NetworkArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// A bridge of the target's host that leads to the production network
    ProductionBridge,
    /// Private to each machine, outgoing through the host
    User,
    /// In a network namespace of its own for each test
    Isolated,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::ProductionBridge => "productionBridge",
            Self::User => "user",
            Self::Isolated => "isolated",
        }
    }
}

#[derive(Args)]
struct Values {
    /// Bridge of the target's host; of a production bridge
    #[arg(long)]
    bridge: Option<String>,
    /// Range for machines that bring no address along
    #[arg(long)]
    cidr: Option<String>,
    #[arg(long)]
    gateway: Option<String>,
    /// May be given again
    #[arg(long)]
    dns: Vec<String>,
    /// on, off: whether Lifeboat hands out addresses in an isolated network
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    dhcp: Option<String>,
}

impl Values {
    fn put_into(&self, body: &mut Value) {
        for (name, value) in [
            ("bridge", &self.bridge),
            ("cidr", &self.cidr),
            ("gateway", &self.gateway),
        ] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        if !self.dns.is_empty() {
            body["dns"] = json!(self.dns);
        }
        if let Some(dhcp) = &self.dhcp {
            body["dhcp"] = json!(dhcp == "on");
        }
    }
}

#[derive(Subcommand)]
enum Verb {
    /// All networks
    #[command(visible_alias = "ls")]
    List,
    /// One network
    Show { name: String },
    /// Make a network; what is left out has the default
    Create {
        name: String,
        #[arg(long)]
        kind: Kind,
        #[command(flatten)]
        values: Values,
    },
    /// Change a network, for failovers from now on; what is left out stays
    Update {
        name: String,
        #[command(flatten)]
        values: Values,
    },
    /// Remove a network that nothing uses
    Delete { name: String },
    /// Which networks stand for those of the source
    Mappings,
    /// Let networks stand for one of the source; without --target and --test the mapping is removed
    Map {
        /// Subnet of the source, such as 192.168.1.0/24, or '*' for all others
        source: String,
        /// Network at a failover
        #[arg(long)]
        target: Option<String>,
        /// Isolated network at a test failover
        #[arg(long)]
        test: Option<String>,
        /// Also change machines that are replicated already
        #[arg(long)]
        apply: bool,
    },
    /// What a failover would start and connect now; changes nothing
    Preview {
        /// Machine, by name or id
        name: String,
        /// Of a test failover
        #[arg(long)]
        test: bool,
        /// Of which operation [default: unplanned]
        #[arg(long, conflicts_with = "test")]
        operation: Option<Previewed>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Previewed {
    Test,
    Planned,
    Unplanned,
    /// The machine at home
    Failback,
}

impl Previewed {
    fn word(self) -> &'static str {
        match self {
            Self::Test => "TestFailover",
            Self::Planned => "PlannedFailover",
            Self::Unplanned => "UnplannedFailover",
            Self::Failback => "Failback",
        }
    }
}

pub fn run(args: &NetworkArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let path = |name: &str| remote.path(&format!("/networks/{}", segment(name)));
    match &args.verb {
        Verb::List => {
            let networks = client.list(&remote.path("/networks"), usize::MAX)?;
            if remote.json {
                say_json(&json!({ "items": networks }));
                return Ok(());
            }
            table(
                &["NAME", "KIND", "BRIDGE", "CIDR", "GATEWAY", "DNS", "DHCP"],
                networks.iter().map(row).collect(),
            );
        }
        Verb::Show { name } => show(remote, &client.get(&path(name))?),
        Verb::Create { name, kind, values } => {
            let mut body = json!({ "name": name, "kind": kind.word() });
            values.put_into(&mut body);
            show(remote, &client.post(&remote.path("/networks"), &body)?);
        }
        Verb::Update { name, values } => {
            let known = client.request(Method::GET, &path(name), None, &[])?;
            let etag = known.etag.clone().unwrap_or_default();
            let known: Value = known.json()?;
            let mut body = json!({});
            for field in ["kind", "bridge", "cidr", "gateway", "dns", "dhcp"] {
                body[field] = known[field].clone();
            }
            values.put_into(&mut body);
            let changed = client.request(Method::PUT, &path(name), Some(&body), &[("if-match", &etag)])?;
            show(remote, &changed.json()?);
        }
        Verb::Delete { name } => {
            client.request(Method::DELETE, &path(name), None, &[])?;
            done(remote, &format!("the network {name} is removed"));
        }
        Verb::Mappings => {
            let known: Value = client.get(&remote.path("/network-mappings"))?;
            if remote.json {
                say_json(&known);
                return Ok(());
            }
            say_mappings(&known);
        }
        Verb::Map {
            source,
            target,
            test,
            apply,
        } => {
            let body = json!({ "source": source, "target": target, "test": test, "applyToItems": apply });
            let mapped: Value = client
                .request(Method::PUT, &remote.path("/network-mappings"), Some(&body), &[])?
                .json()?;
            let changed: Vec<&str> = mapped["changedItems"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let words = match (target, test) {
                (None, None) => format!("{source} is mapped no more"),
                _ if changed.is_empty() => format!("{source} is mapped"),
                _ => format!("{source} is mapped, also for {}", changed.join(", ")),
            };
            done(remote, &words);
            if !apply && !remote.json {
                hint("machines that are replicated already keep their networks; --apply changes them too");
            }
        }
        Verb::Preview {
            name,
            test,
            operation,
        } => {
            let usual = if *test {
                Previewed::Test
            } else {
                Previewed::Unplanned
            };
            let operation = operation.unwrap_or(usual).word();
            let path = format!("/failover-preview?operation={operation}");
            let preview: Value = client.get(&remote.item(name, &path))?;
            if remote.json {
                say_json(&preview);
                return Ok(());
            }
            super::remote::say(&format!(
                "{} would be started as {} with {} CPUs and {}",
                name,
                text(&preview, "machineName"),
                text(&preview, "cpus"),
                super::remote::size(&preview, "memoryBytes")
            ));
            table(
                &["NIC", "MAC", "NETWORK", "ADDRESS", "HOW"],
                preview["nics"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|nic| {
                        let network = [text(nic, "networkKind"), text(nic, "networkName")].join(" ");
                        vec![
                            text(nic, "name"),
                            text(nic, "mac"),
                            network,
                            text(&nic["address"], "cidr"),
                            text(nic, "how"),
                        ]
                    })
                    .collect(),
            );
        }
    }
    Ok(())
}

fn dns(network: &Value) -> String {
    let all = network["dns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    all.collect::<Vec<_>>().join(", ")
}

fn dhcp(network: &Value) -> String {
    match (text(network, "kind").as_str(), network["dhcp"].as_bool()) {
        ("isolated", Some(true)) => "on",
        ("isolated", _) => "off",
        _ => "-",
    }
    .to_owned()
}

fn row(network: &Value) -> Vec<String> {
    let mut row: Vec<String> = ["name", "kind", "bridge", "cidr", "gateway"]
        .into_iter()
        .map(|field| text(network, field))
        .collect();
    row.extend([dns(network), dhcp(network)]);
    row
}

fn show(remote: &Remote, network: &Value) {
    if remote.json {
        return say_json(network);
    }
    facts(&[
        ("name", text(network, "name")),
        ("kind", text(network, "kind")),
        ("bridge", text(network, "bridge")),
        ("range", text(network, "cidr")),
        ("gateway", text(network, "gateway")),
        ("DNS", dns(network)),
        ("DHCP", dhcp(network)),
    ]);
}

fn say_mappings(known: &Value) {
    let list = |field: &str| known[field].as_array().cloned().unwrap_or_default();
    let mappings = list("mappings");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for source in list("sourceNetworks") {
        let cidr = text(&source, "cidr");
        let own = mappings.iter().find(|mapping| text(mapping, "source") == cidr);
        let machines: Vec<&str> = source["machines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        rows.push(vec![
            cidr,
            own.map(|own| text(own, "target")).unwrap_or_default(),
            own.map(|own| text(own, "test")).unwrap_or_default(),
            machines.join(", "),
        ]);
    }
    for mapping in &mappings {
        let source = text(mapping, "source");
        if !rows.iter().any(|row| row[0] == source) {
            rows.push(vec![
                source,
                text(mapping, "target"),
                text(mapping, "test"),
                String::new(),
            ]);
        }
    }
    if rows.is_empty() {
        return hint("no machine has told of its networks yet; a machine joins with: lifeboat agent join");
    }
    table(&["SOURCE", "FAILOVER", "TEST FAILOVER", "MACHINES"], rows);
}
