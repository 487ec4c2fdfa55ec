//! Recovery plans: made, changed, checked.
use super::ApiState;
use super::lists::{Sort, holds};
use super::model::{Page, Paging, Reason, Time, etag, if_match};
use super::plan_runs::PlanRunView;
use super::problem::ApiError;
use crate::block::MachineId;
use crate::recovery::Operation;
use crate::recovery::plan::{
    Action, ActionKind, Direction, FailoverType, Group, OnMachineFailure, Plan, PlanMachine,
};
use crate::vault::PlanRow;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlanActionKind)]
pub enum ActionKindView {
    /// An executable of the server's folder of scripts.
    Script,
    /// As a script, but run inside the network of a machine.
    Command,
    /// The run waits until a person says that it is done.
    Manual,
    /// Asks a machine until it answers.
    Probe,
    Delay,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FailoverType)]
pub enum FailoverTypeView {
    Test,
    Planned,
    Unplanned,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FailoverDirection)]
pub enum DirectionView {
    PrimaryToRecovery,
    RecoveryToPrimary,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OnMachineFailure)]
pub enum OnMachineFailureView {
    /// No further step; then the actions for a failure.
    #[default]
    Stop,
    /// The rest all the same; the run ends as failed.
    GoOn,
    /// A person decides.
    Ask,
}

/// Which fields are used follows from the kind.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PlanAction)]
pub struct ActionView {
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    pub kind: ActionKindView,
    /// Of a script and a command: a file of the server's folder of scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20)]
    pub arguments: Vec<String>,
    /// Of a command and a probe: a machine of the plan, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Of a manual action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096)]
    pub instructions: Option<String>,
    /// Of a probe: tcp, http, ping
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Of a probe by HTTP. Default /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of a probe by HTTP. Default 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of a delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86400)]
    pub seconds: Option<u32>,
    /// Of a script, a command and a probe. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout_seconds: Option<u32>,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 3)]
    pub failover_types: Vec<FailoverTypeView>,
    /// Empty: both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 2)]
    pub directions: Vec<DirectionView>,
}

const TIMEOUT_SECONDS: u32 = 300;

#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PlanGroup)]
pub struct GroupView {
    #[serde(default)]
    #[schema(max_length = 63)]
    pub name: String,
    /// By name or id; they are started at once.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub machines: Vec<String>,
    /// One after the other, before the machines.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub before: Vec<ActionView>,
    /// One after the other, when all machines are up.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub after: Vec<ActionView>,
}

/// All of a plan but its name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanValues {
    /// Another name; left out: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One after the other.
    #[serde(default)]
    #[schema(max_items = 7)]
    pub groups: Vec<GroupView>,
    #[serde(default)]
    pub on_machine_failure: OnMachineFailureView,
    /// Isolated network of the vault, in which all machines of a test meet; left out: each machine's own test network.
    #[serde(default)]
    pub test_network: Option<String>,
    /// When a failover of the plan has failed.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub on_failure: Vec<ActionView>,
    /// When a test of the plan was cleaned up.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub after_cleanup: Vec<ActionView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePlanRequest {
    /// 1 to 63 letters, digits, hyphens, underscores and full stops.
    pub name: String,
    /// One after the other.
    #[serde(default)]
    #[schema(max_items = 7)]
    pub groups: Vec<GroupView>,
    #[serde(default)]
    pub on_machine_failure: OnMachineFailureView,
    /// Isolated network of the vault, in which all machines of a test meet; left out: each machine's own test network.
    #[serde(default)]
    pub test_network: Option<String>,
    /// When a failover of the plan has failed.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub on_failure: Vec<ActionView>,
    /// When a test of the plan was cleaned up.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub after_cleanup: Vec<ActionView>,
}

/// A recovery plan.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecoveryPlan)]
pub struct PlanView {
    pub id: String,
    pub name: String,
    pub groups: Vec<GroupView>,
    pub on_machine_failure: OnMachineFailureView,
    pub test_network: Option<String>,
    pub on_failure: Vec<ActionView>,
    pub after_cleanup: Vec<ActionView>,
    /// The ETag.
    pub revision: u64,
    pub machine_count: u64,
    /// The newest run.
    pub last_run: Option<PlanRunView>,
    /// The newest test that succeeded and was cleaned up.
    pub last_successful_test_failover_at: Option<Time>,
}

fn action_view(action: Action, names: &HashMap<MachineId, String>) -> ActionView {
    let mut view = ActionView {
        name: action.name,
        kind: ActionKindView::Manual,
        script: None,
        arguments: Vec::new(),
        machine: None,
        instructions: None,
        protocol: None,
        port: None,
        path: None,
        status: None,
        seconds: None,
        timeout_seconds: None,
        failover_types: action
            .failover_types
            .into_iter()
            .map(|kind| match kind {
                FailoverType::Test => FailoverTypeView::Test,
                FailoverType::Planned => FailoverTypeView::Planned,
                FailoverType::Unplanned => FailoverTypeView::Unplanned,
            })
            .collect(),
        directions: action
            .directions
            .into_iter()
            .map(|direction| match direction {
                Direction::PrimaryToRecovery => DirectionView::PrimaryToRecovery,
                Direction::RecoveryToPrimary => DirectionView::RecoveryToPrimary,
            })
            .collect(),
    };
    let name = |machine: MachineId| {
        names
            .get(&machine)
            .cloned()
            .unwrap_or_else(|| machine.to_string())
    };
    match action.kind {
        ActionKind::Script {
            script,
            arguments,
            timeout_seconds,
        } => {
            view.kind = ActionKindView::Script;
            (view.script, view.arguments, view.timeout_seconds) =
                (Some(script), arguments, Some(timeout_seconds));
        }
        ActionKind::Command {
            machine,
            script,
            arguments,
            timeout_seconds,
        } => {
            view.kind = ActionKindView::Command;
            view.machine = Some(name(machine));
            (view.script, view.arguments, view.timeout_seconds) =
                (Some(script), arguments, Some(timeout_seconds));
        }
        ActionKind::Manual { instructions } => view.instructions = Some(instructions),
        ActionKind::Probe {
            machine,
            protocol,
            port,
            path,
            status,
            timeout_seconds,
        } => {
            view.kind = ActionKindView::Probe;
            view.machine = Some(name(machine));
            (view.protocol, view.port, view.path, view.status) = (Some(protocol), port, path, status);
            view.timeout_seconds = Some(timeout_seconds);
        }
        ActionKind::Delay { seconds } => {
            view.kind = ActionKindView::Delay;
            view.seconds = Some(seconds);
        }
    }
    view
}

/// From the view to the plan. On the thread that may block: machines are looked up.
struct Reader<'a> {
    state: &'a ApiState,
    vault: &'a str,
}

impl Reader<'_> {
    fn machine(&self, name: &str) -> Result<PlanMachine, ApiError> {
        let row = self.state.vault.find_machine(self.vault, name)?;
        Ok(PlanMachine {
            id: row.id,
            name: row.name,
        })
    }

    fn actions(&self, views: Vec<ActionView>) -> Result<Vec<Action>, ApiError> {
        views.into_iter().map(|view| self.action(view)).collect()
    }

    fn action(&self, view: ActionView) -> Result<Action, ApiError> {
        let missing = |field: &str| {
            ApiError::invalid(format!(
                "the action {:?} of the kind {:?} needs {field}",
                view.name, view.kind
            ))
        };
        let script = || view.script.clone().ok_or_else(|| missing("script"));
        let machine = || {
            let name = view.machine.as_deref().ok_or_else(|| missing("machine"))?;
            self.machine(name).map(|machine| machine.id)
        };
        let timeout_seconds = view.timeout_seconds.unwrap_or(TIMEOUT_SECONDS);
        let kind = match view.kind {
            ActionKindView::Script => ActionKind::Script {
                script: script()?,
                arguments: view.arguments.clone(),
                timeout_seconds,
            },
            ActionKindView::Command => ActionKind::Command {
                machine: machine()?,
                script: script()?,
                arguments: view.arguments.clone(),
                timeout_seconds,
            },
            ActionKindView::Manual => ActionKind::Manual {
                instructions: view.instructions.clone().ok_or_else(|| missing("instructions"))?,
            },
            ActionKindView::Probe => ActionKind::Probe {
                machine: machine()?,
                protocol: view.protocol.clone().ok_or_else(|| missing("protocol"))?,
                port: view.port,
                path: view.path.clone(),
                status: view.status,
                timeout_seconds,
            },
            ActionKindView::Delay => ActionKind::Delay {
                seconds: view.seconds.ok_or_else(|| missing("seconds"))?,
            },
        };
        Ok(Action {
            name: view.name,
            kind,
            failover_types: view
                .failover_types
                .into_iter()
                .map(|kind| match kind {
                    FailoverTypeView::Test => FailoverType::Test,
                    FailoverTypeView::Planned => FailoverType::Planned,
                    FailoverTypeView::Unplanned => FailoverType::Unplanned,
                })
                .collect(),
            directions: view
                .directions
                .into_iter()
                .map(|direction| match direction {
                    DirectionView::PrimaryToRecovery => Direction::PrimaryToRecovery,
                    DirectionView::RecoveryToPrimary => Direction::RecoveryToPrimary,
                })
                .collect(),
        })
    }

    fn plan(&self, name: &str, values: PlanValues) -> Result<Plan, ApiError> {
        let mut groups = Vec::new();
        for group in values.groups {
            groups.push(Group {
                name: group.name,
                machines: group
                    .machines
                    .iter()
                    .map(|name| self.machine(name))
                    .collect::<Result<_, _>>()?,
                before: self.actions(group.before)?,
                after: self.actions(group.after)?,
            });
        }
        Ok(Plan {
            name: values.name.unwrap_or_else(|| name.to_owned()),
            groups,
            on_machine_failure: match values.on_machine_failure {
                OnMachineFailureView::Stop => OnMachineFailure::Stop,
                OnMachineFailureView::GoOn => OnMachineFailure::GoOn,
                OnMachineFailureView::Ask => OnMachineFailure::Ask,
            },
            test_network: values.test_network.filter(|network| !network.is_empty()),
            on_failure: self.actions(values.on_failure)?,
            after_cleanup: self.actions(values.after_cleanup)?,
        })
    }
}

impl From<PlanRow> for PlanView {
    fn from(row: PlanRow) -> Self {
        let plan = row.plan;
        let names: HashMap<MachineId, String> = plan
            .machines()
            .map(|machine| (machine.id, machine.name.clone()))
            .collect();
        let views = |actions: Vec<Action>| -> Vec<ActionView> {
            actions
                .into_iter()
                .map(|action| action_view(action, &names))
                .collect()
        };
        Self {
            id: row.id,
            name: plan.name,
            machine_count: names.len() as u64,
            groups: plan
                .groups
                .into_iter()
                .map(|group| GroupView {
                    name: group.name,
                    machines: group.machines.into_iter().map(|machine| machine.name).collect(),
                    before: views(group.before),
                    after: views(group.after),
                })
                .collect(),
            on_machine_failure: match plan.on_machine_failure {
                OnMachineFailure::Stop => OnMachineFailureView::Stop,
                OnMachineFailure::GoOn => OnMachineFailureView::GoOn,
                OnMachineFailure::Ask => OnMachineFailureView::Ask,
            },
            test_network: plan.test_network,
            on_failure: views(plan.on_failure),
            after_cleanup: views(plan.after_cleanup),
            revision: row.revision,
            last_run: row.last_run.map(PlanRunView::from),
            last_successful_test_failover_at: row.last_successful_test_unix_nanos.map(Time),
        }
    }
}

fn answer(status: StatusCode, row: PlanRow) -> Response {
    let etag = etag(row.revision);
    (status, [(header::ETAG, etag)], Json(PlanView::from(row))).into_response()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct PlanQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// name (default), machineCount; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Recovery plans, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/recovery-plans", tag = "Recovery plans", params(PlanQuery),
    responses((status = 200, body = Page<PlanView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<PlanQuery>,
) -> Result<Json<Page<PlanView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let sort = Sort::of(query.sort.as_deref(), &["name", "machineCount"])?;
    let page = state
        .run(move |state| {
            let views = state
                .vault
                .plans(&vault)?
                .into_iter()
                .filter(|row| holds(&row.plan.name, query.name.as_deref()))
                .map(PlanView::from)
                .collect();
            sort.page(views, &paging, |view| view.name.clone())
        })
        .await?;
    Ok(Json(page))
}

/// One plan, by name or id.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}", tag = "Recovery plans",
    responses((status = 200, body = PlanView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let row = state
        .run(move |state| Ok(state.vault.plan(&vault, &name)?))
        .await?;
    Ok(answer(StatusCode::OK, row))
}

/// Makes a plan.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans", tag = "Recovery plans",
    request_body = CreatePlanRequest, responses((status = 201, body = PlanView)))]
pub async fn create(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Json(request): Json<CreatePlanRequest>,
) -> Result<Response, ApiError> {
    let row = state
        .run(move |state| {
            let values = PlanValues {
                name: None,
                groups: request.groups,
                on_machine_failure: request.on_machine_failure,
                test_network: request.test_network,
                on_failure: request.on_failure,
                after_cleanup: request.after_cleanup,
            };
            let reader = Reader { state, vault: &vault };
            let plan = reader.plan(&request.name, values)?;
            Ok(state.vault.create_plan(&vault, &plan)?)
        })
        .await?;
    Ok(answer(StatusCode::CREATED, row))
}

/// Changes a plan, for runs from now on. What is left out gets the default; the name stays.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}", tag = "Recovery plans",
    params(("If-Match" = Option<String>, Header, description = "ETag of the plan: refused when it was changed since")),
    request_body = PlanValues, responses((status = 200, body = PlanView)))]
pub async fn update(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<PlanValues>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let row = state
        .run(move |state| {
            let known = state.vault.plan(&vault, &name)?;
            let reader = Reader { state, vault: &vault };
            let plan = reader.plan(&known.plan.name, request)?;
            Ok(state.vault.update_plan(&vault, &name, &plan, revision)?)
        })
        .await?;
    Ok(answer(StatusCode::OK, row))
}

/// Removes a plan; its machines stay as they are. Refused while a run of it is not over.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}", tag = "Recovery plans",
    params(("If-Match" = Option<String>, Header, description = "ETag of the plan: refused when it was changed since")),
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| Ok(state.vault.remove_plan(&vault, &name, revision)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What would go wrong in a test failover now. Empty: nothing that can be known beforehand.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanChecks {
    pub problems: Vec<PlanProblem>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanProblem {
    /// Machine or action.
    pub object: String,
    /// Error: it would fail. Warning: it may.
    pub severity: String,
    #[serde(flatten)]
    pub reason: Reason,
}

fn problem(object: &str, severity: &str, code: &str, message: String, action: &str) -> PlanProblem {
    PlanProblem {
        object: object.to_owned(),
        severity: severity.to_owned(),
        reason: Reason {
            code: code.to_owned(),
            message,
            possible_causes: "The plan was made for another state of the site.".to_owned(),
            recommended_action: action.to_owned(),
        },
    }
}

fn problems(state: &ApiState, plan: &Plan) -> Result<Vec<PlanProblem>, ApiError> {
    let mut found = Vec::new();
    if plan.machines().next().is_none() {
        let message = "The plan has no machines.".to_owned();
        found.push(problem(
            &plan.name,
            "Error",
            "PlanIsEmpty",
            message,
            "Put machines into its groups.",
        ));
    }
    for machine in plan.machines() {
        match state.runner.allowed(machine.id) {
            Err(crate::recovery::RecoveryError::Journal(crate::recovery::JournalError::NoItem(_))) => {
                found.push(problem(
                    &machine.name,
                    "Error",
                    "NotReplicated",
                    format!("{} is not a replicated item.", machine.name),
                    "Enable its replication, or take it out of the plan.",
                ));
            }
            Err(error) => return Err(error.into()),
            Ok(allowed) => {
                let refusal = allowed
                    .into_iter()
                    .find(|(operation, _)| *operation == Operation::TestFailover)
                    .and_then(|(_, refusal)| refusal);
                if let Some(refusal) = refusal {
                    found.push(PlanProblem {
                        object: machine.name.clone(),
                        severity: "Error".to_owned(),
                        reason: refusal.into(),
                    });
                }
            }
        }
    }
    let actions = plan
        .groups
        .iter()
        .flat_map(|group| group.before.iter().chain(&group.after))
        .chain(&plan.on_failure)
        .chain(&plan.after_cleanup);
    for action in actions {
        if let ActionKind::Script { script, .. } | ActionKind::Command { script, .. } = &action.kind
            && let Some(trouble) = state.plans.script_trouble(script)
        {
            found.push(PlanProblem {
                object: action.name.clone(),
                severity: "Error".to_owned(),
                reason: trouble.into(),
            });
        }
    }
    for (number, group) in plan.groups.iter().enumerate() {
        // A machine is asked before it is there.
        let later: Vec<MachineId> = plan.groups[number..]
            .iter()
            .flat_map(|group| &group.machines)
            .map(|one| one.id)
            .collect();
        let after: Vec<MachineId> = plan.groups[number + 1..]
            .iter()
            .flat_map(|group| &group.machines)
            .map(|one| one.id)
            .collect();
        for (action, not_there) in group
            .before
            .iter()
            .map(|one| (one, &later))
            .chain(group.after.iter().map(|one| (one, &after)))
        {
            if let ActionKind::Probe { machine, .. } | ActionKind::Command { machine, .. } = &action.kind
                && not_there.contains(machine)
            {
                found.push(problem(
                    &action.name,
                    "Error",
                    "MachineNotStartedYet",
                    format!("{} asks a machine that is started behind it.", action.name),
                    "Move the action behind the machine's group.",
                ));
            }
        }
    }
    Ok(found)
}

/// Checks a plan against the site as it is now. Changes nothing.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/checks", tag = "Recovery plans",
    responses((status = 200, body = PlanChecks)))]
pub async fn checks(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
) -> Result<Json<PlanChecks>, ApiError> {
    let problems = state
        .run(move |state| problems(state, &state.vault.plan(&vault, &name)?.plan))
        .await?;
    Ok(Json(PlanChecks { problems }))
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanScripts {
    /// Folder on the server.
    pub folder: String,
    /// Files in it that a plan may use.
    pub scripts: Vec<String>,
}

/// Scripts that plans may use: executables in one folder of the server, which only its administrator fills.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/plan-scripts", tag = "Recovery plans",
    responses((status = 200, body = PlanScripts)))]
pub async fn scripts(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
) -> Result<Json<PlanScripts>, ApiError> {
    let (folder, scripts) = state
        .run(move |state| {
            // Of a vault that there is.
            state.vault.networks(&vault)?;
            Ok(state.plans.scripts())
        })
        .await?;
    Ok(Json(PlanScripts {
        folder: folder.display().to_string(),
        scripts,
    }))
}
