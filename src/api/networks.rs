//! Networks of the target site, which of them stand for those of the source, and what a failover would connect.
use super::ApiState;
use super::items::{NicAddressView, find};
use super::lists::{Sort, holds};
use super::model::{Page, Paging, etag, if_match};
use super::problem::ApiError;
use crate::recovery::{PointChoice, Request};
use crate::target::{Cidr, Network, Nic, NicAddress, UNDERSTOOD};
use crate::vault::{NetworkKind, NetworkMapping, NetworkRow, NetworkSettings};
use crate::wire::facts::Inventory;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NetworkKind)]
pub enum NetworkKindView {
    /// A bridge of the target's host that leads to the production network.
    ProductionBridge,
    /// Private to each machine, outgoing through the host.
    User,
    /// A bridge in a network namespace of its own, another one for each test failover and each run of a plan.
    Isolated,
}

/// What a network is; what is left out has the default.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkValues {
    pub kind: NetworkKindView,
    /// Bridge of the target's host; of a productionBridge, where it must be given.
    #[serde(default)]
    #[schema(max_length = 15)]
    pub bridge: Option<String>,
    /// Range of an isolated network, for machines that bring no address along.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub cidr: Option<Cidr>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 4)]
    pub dns: Vec<Ipv4Addr>,
    /// Of an isolated network: Lifeboat hands addresses out by DHCP. Default true.
    #[serde(default)]
    pub dhcp: Option<bool>,
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateNetworkRequest {
    /// 1 to 32 letters, digits, hyphens and underscores.
    #[schema(min_length = 1, max_length = 32)]
    pub name: String,
    pub kind: NetworkKindView,
    /// Bridge of the target's host; of a productionBridge, where it must be given.
    #[serde(default)]
    #[schema(max_length = 15)]
    pub bridge: Option<String>,
    /// Range of an isolated network, for machines that bring no address along.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub cidr: Option<Cidr>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 4)]
    pub dns: Vec<Ipv4Addr>,
    /// Of an isolated network: Lifeboat hands addresses out by DHCP. Default true.
    #[serde(default)]
    pub dhcp: Option<bool>,
}

impl From<NetworkValues> for NetworkSettings {
    fn from(values: NetworkValues) -> Self {
        Self {
            kind: match values.kind {
                NetworkKindView::ProductionBridge => NetworkKind::ProductionBridge,
                NetworkKindView::User => NetworkKind::User,
                NetworkKindView::Isolated => NetworkKind::Isolated,
            },
            bridge: values.bridge.filter(|bridge| !bridge.is_empty()),
            cidr: values.cidr,
            gateway: values.gateway,
            dns: values.dns,
            dhcp: values.dhcp.unwrap_or(true),
        }
    }
}

/// A network of the target site.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Network)]
pub struct NetworkRowView {
    pub name: String,
    pub kind: NetworkKindView,
    pub bridge: Option<String>,
    #[schema(value_type = Option<String>)]
    pub cidr: Option<Cidr>,
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub gateway: Option<Ipv4Addr>,
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<Ipv4Addr>,
    pub dhcp: bool,
    /// The ETag.
    pub revision: u64,
}

impl From<NetworkRow> for NetworkRowView {
    fn from(row: NetworkRow) -> Self {
        let settings = row.settings;
        Self {
            name: row.name,
            kind: match settings.kind {
                NetworkKind::ProductionBridge => NetworkKindView::ProductionBridge,
                NetworkKind::User => NetworkKindView::User,
                NetworkKind::Isolated => NetworkKindView::Isolated,
            },
            bridge: settings.bridge,
            cidr: settings.cidr,
            gateway: settings.gateway,
            dns: settings.dns,
            dhcp: settings.dhcp,
            revision: row.revision,
        }
    }
}

fn answer(status: StatusCode, row: NetworkRow) -> Response {
    let etag = etag(row.revision);
    (status, [(header::ETAG, etag)], Json(NetworkRowView::from(row))).into_response()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct NetworkQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// name (default), kind; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Networks of the target site, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/networks", tag = "Networks", params(NetworkQuery),
    responses((status = 200, body = Page<NetworkRowView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<NetworkQuery>,
) -> Result<Json<Page<NetworkRowView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let sort = Sort::of(query.sort.as_deref(), &["name", "kind"])?;
    let page = state
        .run(move |state| {
            let views = state
                .vault
                .networks(&vault)?
                .into_iter()
                .filter(|row| holds(&row.name, query.name.as_deref()))
                .map(NetworkRowView::from)
                .collect();
            sort.page(views, &paging, |view| view.name.clone())
        })
        .await?;
    Ok(Json(page))
}

/// One network.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/networks/{network}", tag = "Networks",
    responses((status = 200, body = NetworkRowView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let row = state
        .run(move |state| Ok(state.vault.network(&vault, &name)?))
        .await?;
    Ok(answer(StatusCode::OK, row))
}

/// Makes a network: a name for something of the target's host; nothing is made there yet.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/networks", tag = "Networks",
    request_body = CreateNetworkRequest, responses((status = 201, body = NetworkRowView)))]
pub async fn create(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Json(request): Json<CreateNetworkRequest>,
) -> Result<Response, ApiError> {
    let row = state
        .run(move |state| {
            let values = NetworkValues {
                kind: request.kind,
                bridge: request.bridge,
                cidr: request.cidr,
                gateway: request.gateway,
                dns: request.dns,
                dhcp: request.dhcp,
            };
            Ok(state
                .vault
                .create_network(&vault, &request.name, &values.into())?)
        })
        .await?;
    Ok(answer(StatusCode::CREATED, row))
}

/// Changes a network, for failovers from now on. What is left out gets the default.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/networks/{network}", tag = "Networks",
    params(("If-Match" = Option<String>, Header, description = "ETag of the network: refused when it was changed since")),
    request_body = NetworkValues, responses((status = 200, body = NetworkRowView)))]
pub async fn update(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<NetworkValues>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let row = state
        .run(move |state| {
            Ok(state
                .vault
                .update_network(&vault, &name, &request.into(), revision)?)
        })
        .await?;
    Ok(answer(StatusCode::OK, row))
}

/// Removes a network that nothing is mapped to and no machine is to be put in.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/networks/{network}", tag = "Networks",
    params(("If-Match" = Option<String>, Header, description = "ETag of the network: refused when it was changed since")),
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| Ok(state.vault.remove_network(&vault, &name, revision)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Networks that stand for one of the source.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NetworkMapping)]
pub struct MappingView {
    /// Subnet of the source, or `*` for all that have no mapping of their own.
    pub source: String,
    /// At a failover.
    pub target: Option<String>,
    /// At a test failover.
    pub test: Option<String>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SourceNetwork)]
pub struct SourceNetworkView {
    #[schema(value_type = String)]
    pub cidr: Cidr,
    /// Machines that are in it.
    pub machines: Vec<String>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkMappings {
    pub mappings: Vec<MappingView>,
    /// Subnets that the machines of the vault are in, as their agents tell.
    pub source_networks: Vec<SourceNetworkView>,
}

/// Which networks of the target stand for which of the source.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/network-mappings", tag = "Networks",
    responses((status = 200, body = NetworkMappings)))]
pub async fn mappings(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
) -> Result<Json<NetworkMappings>, ApiError> {
    let (mappings, sources) = state
        .run(move |state| Ok(state.vault.network_mappings(&vault)?))
        .await?;
    let mapping = |mapping: NetworkMapping| MappingView {
        source: mapping.source,
        target: mapping.target,
        test: mapping.test,
    };
    let source = |source: crate::vault::SourceNetwork| SourceNetworkView {
        cidr: source.cidr,
        machines: source.machines,
    };
    Ok(Json(NetworkMappings {
        mappings: mappings.into_iter().map(mapping).collect(),
        source_networks: sources.into_iter().map(source).collect(),
    }))
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MapRequest {
    /// Subnet of the source, or `*` for all that have no mapping of their own.
    pub source: String,
    /// Network at a failover; null: none.
    #[serde(default)]
    pub target: Option<String>,
    /// Isolated network at a test failover; null: none. Both null: the mapping is removed.
    #[serde(default)]
    pub test: Option<String>,
    /// Also for machines that are replicated already. Default false: only for those that will be.
    #[serde(default)]
    pub apply_to_items: bool,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mapped {
    /// Machines whose target settings were changed.
    pub changed_items: Vec<String>,
}

/// Maps a network of the source: the default of machines whose replication is enabled from now on.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/network-mappings", tag = "Networks",
    request_body = MapRequest, responses((status = 200, body = Mapped)))]
pub async fn map(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Json(request): Json<MapRequest>,
) -> Result<Json<Mapped>, ApiError> {
    let changed_items = state
        .run(move |state| {
            let mapping = NetworkMapping {
                source: request.source,
                target: request.target,
                test: request.test,
            };
            Ok(state
                .vault
                .map_network(&vault, &mapping, request.apply_to_items)?)
        })
        .await?;
    Ok(Json(Mapped { changed_items }))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PreviewQuery {
    /// Of a test failover; the same as that operation.
    #[serde(default)]
    pub test: bool,
    /// Default: UnplannedFailover.
    #[param(inline)]
    pub operation: Option<Previewed>,
}

/// Operations that start a machine, as `allowedOperations` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
pub enum Previewed {
    TestFailover,
    PlannedFailover,
    UnplannedFailover,
    Failback,
}

impl PreviewQuery {
    /// None: what starts is the machine at home.
    fn request(&self) -> Option<Request> {
        let point = PointChoice::LatestProcessed;
        let usual = match self.test {
            true => Previewed::TestFailover,
            false => Previewed::UnplannedFailover,
        };
        match self.operation.unwrap_or(usual) {
            Previewed::TestFailover => Some(Request::TestFailover { point, network: None }),
            Previewed::PlannedFailover => Some(Request::PlannedFailover),
            Previewed::UnplannedFailover => Some(Request::UnplannedFailover {
                point,
                last_sync: false,
            }),
            Previewed::Failback => None,
        }
    }
}

/// What a failover would start now.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverPreview {
    /// Name at the target; of a failback, the machine's own.
    pub machine_name: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub nics: Vec<NicPreview>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NicPreview {
    /// As the source names it; null: it has no such NIC.
    pub name: Option<String>,
    pub mac: Option<String>,
    /// isolated, user, isolatedUser, bridge; of a failback: source
    pub network_kind: String,
    pub network_name: Option<String>,
    pub address: Option<NicAddressView>,
    /// How the guest comes by its address, in words.
    pub how: String,
}

const TAKEN_BACK: &str = "what was set for the target is taken back";

fn set_in_branch(cidr: Cidr) -> String {
    format!(
        "{cidr} will be set in the branch, where the guest has {UNDERSTOOD} (the job says by which, or why not), and taken back on the way home; else it keeps what it is configured with, or asks a DHCP server"
    )
}

/// How the guest comes by its address.
fn how(nic: &Nic) -> String {
    let address = nic.address.as_ref();
    match (&nic.network, address) {
        (Network::Isolated { segment, .. }, Some(address)) if segment.dhcp => {
            format!("DHCP in the isolated network hands out {}", address.cidr)
        }
        (Network::Isolated { segment, .. }, None) if segment.dhcp => {
            "DHCP in the isolated network hands out an address of its range".to_owned()
        }
        (Network::Isolated { .. }, Some(address)) => set_in_branch(address.cidr),
        (Network::Isolated { .. }, _) => {
            "DHCP is off in the isolated network: the guest keeps the address that it is configured with"
                .to_owned()
        }
        (Network::Bridge { .. }, Some(address)) => set_in_branch(address.cidr),
        (Network::Bridge { name }, None) => format!(
            "the guest keeps the address that it is configured with, or asks the DHCP server behind the bridge {name}"
        ),
        (Network::User { .. } | Network::IsolatedUser { .. }, _) => {
            "QEMU hands out 10.0.2.15 by DHCP; a guest with another address is not reached".to_owned()
        }
        (Network::Named { name }, _) => format!("the network {name} is not known"),
    }
}

fn nic_preview(place: usize, nic: Nic, inventory: &Inventory) -> NicPreview {
    let mut real = inventory.nics.iter().filter(|facts| facts.name != "lo");
    let facts = match &nic.mac {
        Some(mac) => real.find(|facts| facts.mac.eq_ignore_ascii_case(mac)),
        None => real.nth(place),
    };
    let (kind, name) = match &nic.network {
        Network::User { .. } => ("user", None),
        Network::IsolatedUser { .. } => ("isolatedUser", None),
        Network::Isolated { name, .. } => ("isolated", Some(name.clone())),
        Network::Bridge { name } => ("bridge", Some(name.clone())),
        Network::Named { name } => ("named", Some(name.clone())),
    };
    NicPreview {
        name: facts.map(|facts| facts.name.clone()),
        how: how(&nic),
        network_kind: kind.to_owned(),
        network_name: name,
        mac: nic.mac,
        address: nic.address.map(Into::into),
    }
}

/// The machine at home, as it was when it was last seen there.
fn home_preview(name: String, inventory: &Inventory) -> FailoverPreview {
    let nics = inventory.nics.iter().filter(|facts| facts.name != "lo");
    let nics = nics.map(|facts| {
        let cidr = crate::vault::first_ipv4(facts);
        let gateway = facts.default_gateway.as_ref().and_then(|text| text.parse().ok());
        NicPreview {
            name: Some(facts.name.clone()),
            mac: Some(facts.mac.clone()).filter(|mac| !mac.is_empty()),
            network_kind: "source".to_owned(),
            network_name: cidr.map(|cidr| cidr.network().to_string()),
            how: match cidr {
                Some(cidr) => format!("{cidr}, as it had it when it was last seen at home; {TAKEN_BACK}"),
                None => format!("as it is configured at home; {TAKEN_BACK}"),
            },
            address: cidr.map(|cidr| {
                let address = NicAddress {
                    cidr,
                    gateway,
                    dns: Vec::new(),
                };
                address.into()
            }),
        }
    });
    FailoverPreview {
        machine_name: name,
        cpus: inventory.cpus,
        memory_bytes: inventory.memory_bytes,
        nics: nics.collect(),
    }
}

/// A dry run: the machine that a failover or a failback would start now, its networks, and how it comes by its addresses. Changes nothing.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/failover-preview", tag = "Failover",
    params(PreviewQuery), responses((status = 200, body = FailoverPreview)))]
pub async fn preview(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(query): Query<PreviewQuery>,
) -> Result<Json<FailoverPreview>, ApiError> {
    let view = state
        .run(move |state| {
            let found = find(state, &vault, &item)?.item;
            let machine = found.machine;
            let inventory = state.vault.machine(machine)?.inventory.unwrap_or_default();
            let Some(request) = query.request() else {
                return Ok(home_preview(found.name, &inventory));
            };
            let spec = state
                .runner
                .preview(machine, &request)?
                .ok_or_else(|| ApiError::not_found("machine to start of", &item))?;
            let nics = spec.nics.into_iter().enumerate();
            Ok(FailoverPreview {
                machine_name: spec.name,
                cpus: spec.cpus,
                memory_bytes: spec.memory_bytes,
                nics: nics
                    .map(|(place, nic)| nic_preview(place, nic, &inventory))
                    .collect(),
            })
        })
        .await?;
    Ok(Json(view))
}
