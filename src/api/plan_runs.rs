//! Runs of recovery plans: started, watched, and decided about.
use super::ApiState;
use super::access::Caller;
use super::failover::point_choice;
use super::model::{Named, Page, Paging, Reason, Time, etag};
use super::problem::ApiError;
use crate::recovery::plan::{
    ActionKind, NewRun, PersonsWord, PlanJournal, PlanOperation, PlanRun, RunOptions, RunStep, StepState,
    StepWork,
};
use crate::recovery::{JobId, PointChoice};
use crate::vault::plan_scenario;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

/// A step of a run: a machine, or an action.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlanRunStep)]
pub struct StepView {
    pub index: u64,
    /// Steps of one stage go on at once.
    pub stage: u32,
    /// Of the plan, from 0 on; null: of the plan as a whole.
    pub group: Option<u32>,
    pub group_name: Option<String>,
    /// Before, Machines, After, OnFailure, AfterCleanup
    pub phase: String,
    /// machine, script, command, manual, probe, delay
    pub kind: String,
    pub name: String,
    pub machine: Option<Named>,
    /// Of a manual action.
    pub instructions: Option<String>,
    /// NotStarted, InProgress, Suspended, Succeeded, Failed, Skipped
    pub state: String,
    /// How often it was begun.
    pub attempt: u32,
    /// The machine's job.
    pub job: Option<String>,
    pub earlier_jobs: Vec<String>,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub message: String,
    pub error: Option<Reason>,
    /// Who resumed or skipped it.
    pub decided_by: Option<String>,
    pub comment: String,
    /// Age of the machine's point when the run began.
    pub rpo_seconds: Option<f64>,
    /// From the run's begin until the machine was up.
    pub rto_seconds: Option<f64>,
    /// skip: a person may go on without it.
    pub skippable: bool,
}

/// A run of a recovery plan.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlanRun)]
pub struct PlanRunView {
    pub id: String,
    pub plan: Named,
    pub operation: String,
    /// `operation` in words.
    pub scenario: String,
    /// NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended
    pub state: String,
    pub user: String,
    pub created_at: Time,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub recovery_point: Option<String>,
    pub notes: String,
    pub test_network: Option<String>,
    /// Why it waits for a person.
    pub waits_for: String,
    pub stopped_by: Option<String>,
    pub cancelled_by: Option<String>,
    pub steps: Vec<StepView>,
    /// Machines by state, rpoSeconds, rtoSeconds, planRtoSeconds.
    #[schema(value_type = Object)]
    pub result: serde_json::Value,
    pub error: Option<Reason>,
    /// stop, resume, skip, cancel
    pub allowed_actions: Vec<String>,
}

fn step_view(run: &PlanRun, index: usize, step: &RunStep, skippable: bool) -> StepView {
    let (kind, machine, instructions) = match &step.work {
        StepWork::Machine(machine) => (
            "machine",
            Some(Named {
                id: machine.id.to_string(),
                name: machine.name.clone(),
            }),
            None,
        ),
        StepWork::Action(action) => match &action.kind {
            ActionKind::Script { .. } => ("script", None, None),
            ActionKind::Command { .. } => ("command", None, None),
            ActionKind::Manual { instructions } => ("manual", None, Some(instructions.clone())),
            ActionKind::Probe { .. } => ("probe", None, None),
            ActionKind::Delay { .. } => ("delay", None, None),
        },
    };
    let group = step.group.and_then(|group| run.plan.groups.get(group as usize));
    StepView {
        index: index as u64,
        stage: step.stage,
        group: step.group,
        group_name: group.map(|group| group.name.clone()),
        phase: format!("{:?}", step.phase),
        kind: kind.to_owned(),
        name: step.name().to_owned(),
        machine,
        instructions,
        state: match step.state {
            StepState::NotStarted => "NotStarted",
            StepState::InProgress => "InProgress",
            StepState::Suspended => "Suspended",
            StepState::Succeeded => "Succeeded",
            StepState::Failed => "Failed",
            StepState::Skipped => "Skipped",
        }
        .to_owned(),
        attempt: step.attempt,
        job: step.job.map(|job| job.to_string()),
        earlier_jobs: step.earlier_jobs.iter().map(JobId::to_string).collect(),
        started_at: step.started_unix_nanos.map(Time),
        ended_at: step.ended_unix_nanos.map(Time),
        message: step.message.clone(),
        error: step.error.clone().map(Reason::from),
        decided_by: step.decided_by.clone(),
        comment: step.comment.clone(),
        rpo_seconds: step.figures.rpo_seconds,
        rto_seconds: step.figures.rto_seconds,
        skippable,
    }
}

impl From<PlanRun> for PlanRunView {
    fn from(run: PlanRun) -> Self {
        let skippable: Vec<usize> = if run.allowed_actions().contains(&"skip") {
            run.skippable().collect()
        } else {
            Vec::new()
        };
        let steps = run.steps.iter().enumerate();
        Self {
            steps: steps
                .map(|(index, step)| step_view(&run, index, step, skippable.contains(&index)))
                .collect(),
            allowed_actions: run.allowed_actions().into_iter().map(str::to_owned).collect(),
            result: run.result(),
            id: run.id.to_string(),
            operation: format!("{:?}", run.operation),
            scenario: plan_scenario(run.operation).to_owned(),
            state: format!("{:?}", run.state),
            created_at: Time(run.created_unix_nanos),
            started_at: run.started_unix_nanos.map(Time),
            ended_at: run.ended_unix_nanos.map(Time),
            recovery_point: run.options.point.map(|point| format!("{point:?}")),
            notes: run.options.notes,
            test_network: run.options.test_network.or(run.plan.test_network),
            plan: Named {
                id: run.plan_id,
                name: run.plan.name,
            },
            user: run.user,
            waits_for: run.waits_for,
            stopped_by: run.stopped_by,
            cancelled_by: run.cancelled_by,
            error: run.error.map(Reason::from),
        }
    }
}

/// The answer to an order that a run of a plan carries out.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct PlanAccepted {
    pub run: PlanRunView,
}

impl IntoResponse for PlanAccepted {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self)).into_response()
    }
}

fn start(
    state: &ApiState,
    vault: &str,
    plan: &str,
    operation: PlanOperation,
    options: RunOptions,
    caller: &Caller,
) -> Result<PlanAccepted, ApiError> {
    if options.notes.len() > 4096 {
        return Err(ApiError::invalid("notes have at most 4096 bytes"));
    }
    let row = state.vault.plan(vault, plan)?;
    if let Some(network) = &options.test_network {
        let known = state.vault.network(vault, network)?;
        if known.settings.kind != crate::vault::NetworkKind::Isolated {
            return Err(ApiError::invalid("testNetwork is an isolated network"));
        }
    }
    let id = state.plans.start(NewRun {
        vault: vault.to_owned(),
        plan_id: row.id,
        plan: row.plan,
        operation,
        options,
        user: caller.user.clone(),
    })?;
    let run = state.vault.plan_run(id)?;
    Ok(PlanAccepted { run: run.into() })
}

/// Points of many machines have no id in common.
fn point(text: Option<&str>) -> Result<Option<PointChoice>, ApiError> {
    match text.map(point_choice).transpose()? {
        Some(PointChoice::Custom(_)) => Err(ApiError::invalid(
            "recoveryPoint of a plan is Latest, LatestProcessed, LatestAppConsistent, LatestCrashConsistent, LatestMultiVm or LatestMultiVmAppConsistent",
        )),
        other => Ok(other),
    }
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanTestRequest {
    /// Latest, LatestProcessed (default), LatestAppConsistent, LatestCrashConsistent, LatestMultiVm,
    /// LatestMultiVmAppConsistent. MultiVm: machines of a replication group at one instant, the others at their latest.
    #[serde(default)]
    pub recovery_point: Option<String>,
    /// Isolated network of the vault in place of the plan's.
    #[serde(default)]
    pub test_network: Option<String>,
}

/// Starts copies of the plan's machines, group by group, in isolated networks that the run's machines share.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/test-failover", tag = "Recovery plans",
    operation_id = "testFailoverOfPlan",
    request_body = PlanTestRequest, responses((status = 202, body = PlanAccepted)))]
pub async fn test_failover(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<PlanTestRequest>,
) -> Result<PlanAccepted, ApiError> {
    let options = RunOptions {
        point: point(request.recovery_point.as_deref())?,
        test_network: request.test_network,
        ..RunOptions::default()
    };
    state
        .run(move |state| {
            start(
                state,
                &vault,
                &plan,
                PlanOperation::TestFailover,
                options,
                &caller,
            )
        })
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanCleanupRequest {
    /// What was seen; kept with the run and with each machine's job.
    #[serde(default)]
    #[schema(max_length = 4096)]
    pub notes: String,
}

/// Removes the machines of a test, the last group first.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/test-failover-cleanup", tag = "Recovery plans",
    operation_id = "testFailoverCleanupOfPlan",
    request_body = PlanCleanupRequest, responses((status = 202, body = PlanAccepted)))]
pub async fn test_failover_cleanup(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<PlanCleanupRequest>,
) -> Result<PlanAccepted, ApiError> {
    let options = RunOptions {
        notes: request.notes,
        ..RunOptions::default()
    };
    state
        .run(move |state| {
            start(
                state,
                &vault,
                &plan,
                PlanOperation::TestFailoverCleanup,
                options,
                &caller,
            )
        })
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanFailoverRequest {
    /// Latest (default), LatestProcessed, LatestAppConsistent, LatestCrashConsistent, LatestMultiVm,
    /// LatestMultiVmAppConsistent. MultiVm: machines of a replication group at one instant, the others at their latest.
    #[serde(default)]
    pub recovery_point: Option<String>,
}

/// Starts the plan's machines at the target for real, group by group, and fences their sources.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/unplanned-failover", tag = "Recovery plans",
    operation_id = "unplannedFailoverOfPlan",
    request_body = PlanFailoverRequest, responses((status = 202, body = PlanAccepted)))]
pub async fn unplanned_failover(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<PlanFailoverRequest>,
) -> Result<PlanAccepted, ApiError> {
    let options = RunOptions {
        point: point(request.recovery_point.as_deref())?,
        ..RunOptions::default()
    };
    state
        .run(move |state| {
            start(
                state,
                &vault,
                &plan,
                PlanOperation::UnplannedFailover,
                options,
                &caller,
            )
        })
        .await
}

/// Commits the failover of all machines of the plan.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/commit", tag = "Recovery plans",
    operation_id = "commitPlan",
    responses((status = 202, body = PlanAccepted)))]
pub async fn commit(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    plain(state, vault, plan, PlanOperation::Commit, caller).await
}

/// Shuts the plan's machines down at the source, group by group, and starts them at the target without loss.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/planned-failover", tag = "Recovery plans",
    operation_id = "plannedFailoverOfPlan",
    responses((status = 202, body = PlanAccepted)))]
pub async fn planned_failover(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    plain(state, vault, plan, PlanOperation::PlannedFailover, caller).await
}

/// Takes the failover of all machines back, before it is committed; what they wrote since is discarded.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/cancel-failover", tag = "Recovery plans",
    operation_id = "cancelFailoverOfPlan",
    responses((status = 202, body = PlanAccepted)))]
pub async fn cancel_failover(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    plain(state, vault, plan, PlanOperation::CancelFailover, caller).await
}

/// Replicates all machines of the plan in the other direction from now on. Each is received by itself: `lifeboat agent receive`.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/reprotect", tag = "Recovery plans",
    operation_id = "reprotectPlan",
    responses((status = 202, body = PlanAccepted)))]
pub async fn reprotect(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    plain(state, vault, plan, PlanOperation::ReverseReplicate, caller).await
}

/// Brings all machines of the plan home, group by group.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/failback", tag = "Recovery plans",
    operation_id = "failbackOfPlan",
    responses((status = 202, body = PlanAccepted)))]
pub async fn failback(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    plain(state, vault, plan, PlanOperation::Failback, caller).await
}

async fn plain(
    state: ApiState,
    vault: String,
    plan: String,
    operation: PlanOperation,
    caller: Caller,
) -> Result<PlanAccepted, ApiError> {
    state
        .run(move |state| start(state, &vault, &plan, operation, RunOptions::default(), &caller))
        .await
}

/// Runs of a plan, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs", tag = "Recovery plans", params(Paging),
    responses((status = 200, body = Page<PlanRunView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path((vault, plan)): Path<(String, String)>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<PlanRunView>>, ApiError> {
    let limit = paging.limit()?;
    let after = paging.after_parsed::<uuid::Uuid>()?.map(JobId);
    let page = state
        .run(move |state| {
            let row = state.vault.plan(&vault, &plan)?;
            let rows = state.vault.plan_runs(&vault, &row.id, after, limit + 1)?;
            Page::of(rows, limit, |run| run.id.to_string(), |run| Ok(run.into()))
        })
        .await?;
    Ok(Json(page))
}

/// A run of this plan. `latest`: the newest one.
fn find(state: &ApiState, vault: &str, plan: &str, run: &str) -> Result<PlanRun, ApiError> {
    let row = state.vault.plan(vault, plan)?;
    let missing = || ApiError::not_found("run of the recovery plan", run);
    if run == "latest" {
        return row.last_run.ok_or_else(missing);
    }
    let id = uuid::Uuid::parse_str(run).map_err(|_| missing())?;
    let found = state.vault.plan_run(JobId(id)).map_err(|_| missing())?;
    if found.plan_id == row.id {
        Ok(found)
    } else {
        Err(missing())
    }
}

/// One run with its steps; `latest` is the newest.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}", tag = "Recovery plans",
    responses((status = 200, body = PlanRunView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, plan, run)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let run = state.run(move |state| find(state, &vault, &plan, &run)).await?;
    let etag = etag(run.revision);
    Ok(([(header::ETAG, etag)], Json(PlanRunView::from(run))).into_response())
}

async fn say(
    state: ApiState,
    (vault, plan, run): (String, String, String),
    word: PersonsWord,
    caller: Caller,
) -> Result<PlanAccepted, ApiError> {
    state
        .run(move |state| {
            let id = find(state, &vault, &plan, &run)?.id;
            let run = state.plans.say(id, &word, &caller.user)?;
            Ok(PlanAccepted { run: run.into() })
        })
        .await
}

/// Nothing new begins; what is under way goes on to its end. Resume lets it go on.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/stop", tag = "Recovery plans",
    operation_id = "stopPlanRun",
    responses((status = 202, body = PlanAccepted)))]
pub async fn stop(
    State(state): State<ApiState>,
    Path(path): Path<(String, String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    say(state, path, PersonsWord::Stop, caller).await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepDecision {
    /// Index of the step; left out: all that wait (resume), the first that can be skipped (skip).
    #[serde(default)]
    #[schema(maximum = 10000)]
    pub step: Option<u64>,
    /// What was done or seen; kept with the step.
    #[serde(default)]
    #[schema(max_length = 4096)]
    pub comment: String,
}

impl StepDecision {
    fn check(self) -> Result<(Option<usize>, String), ApiError> {
        if self.comment.len() > 4096 {
            return Err(ApiError::invalid("comment has at most 4096 bytes"));
        }
        Ok((
            self.step.map(|step| usize::try_from(step).unwrap_or(usize::MAX)),
            self.comment,
        ))
    }
}

/// A run that was stopped goes on; a manual action is done; a failed step is tried again.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/resume", tag = "Recovery plans",
    operation_id = "resumePlanRun",
    request_body = StepDecision, responses((status = 202, body = PlanAccepted)))]
pub async fn resume(
    State(state): State<ApiState>,
    Path(path): Path<(String, String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<StepDecision>,
) -> Result<PlanAccepted, ApiError> {
    let (step, comment) = request.check()?;
    say(state, path, PersonsWord::Resume { step, comment }, caller).await
}

/// Goes on without a step that waits, has failed, or is an action under way.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/skip", tag = "Recovery plans",
    operation_id = "skipStepOfPlanRun",
    request_body = StepDecision, responses((status = 202, body = PlanAccepted)))]
pub async fn skip(
    State(state): State<ApiState>,
    Path(path): Path<(String, String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<StepDecision>,
) -> Result<PlanAccepted, ApiError> {
    let (step, comment) = request.check()?;
    say(state, path, PersonsWord::Skip { step, comment }, caller).await
}

/// Ends the run for good. Machines' jobs that can be cancelled are; what was started stays, until it is cleaned up.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/cancel", tag = "Recovery plans",
    operation_id = "cancelPlanRun",
    responses((status = 202, body = PlanAccepted)))]
pub async fn cancel(
    State(state): State<ApiState>,
    Path(path): Path<(String, String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<PlanAccepted, ApiError> {
    say(state, path, PersonsWord::Cancel, caller).await
}
