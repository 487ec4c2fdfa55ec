//! The control calls of agents: enrol, renew, heartbeat.
use super::pki::{CLIENT_LIFE, Issued, Pki, PkiError};
use super::roster::Roster;
use crate::block::{DiskId, MachineId, PointId};
use crate::process_server::{Admission, blocking, caller};
use crate::recovery::JobId;
use crate::rt::{executable, now_unix_nanos};
use crate::vault::{
    CertificateStatus, DEFAULT_VAULT, HaltReport, Heartbeat, Invites, LiveDisk, Trouble, Vault, VaultError,
};
use crate::wire::proto::control_server::Control;
use crate::wire::proto::{
    AgentPart, AgentUpdate, Desired, DesiredDisk, EnrolReply, EnrolRequest, FetchAgentRequest,
    HeartbeatReply, HeartbeatRequest, RenewReply, RenewRequest, RoundOrder, RoundReport,
};
use crate::wire::{DISKS_MAX, PROTOCOL_VERSION, Refused};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A clock further off than this cannot use the certificate that it would get.
const ENROL_SKEW_MAX: Duration = Duration::from_secs(12 * 3600);
/// Text fields of a peer are cut here.
const TEXT_CHARS_MAX: usize = 1000;
const TROUBLES_MAX: usize = 50;
/// Of the executable, in one message.
const PART_BYTES: usize = 256 << 10;
const INVENTORY_BYTES_MAX: usize = 1 << 20;
/// A round has five.
const ROUND_ORDERS_MAX: usize = 16;

#[derive(Clone)]
pub struct ControlService {
    pub vault: Vault,
    pub pki: Arc<Pki>,
    pub roster: Arc<Roster>,
    /// Between two heartbeats of an agent.
    pub heartbeat: Duration,
    /// Of a new client certificate; [`CLIENT_LIFE`] except in tests.
    pub client_life: Duration,
}

pub(super) fn of_vault(error: &VaultError) -> Refused {
    match error {
        VaultError::Refused(refusal) => Refused::new(
            &refusal.code,
            refusal.message.clone(),
            &refusal.possible_causes,
            &refusal.recommended_action,
        ),
        VaultError::BadName(_) => Refused::new(
            "BadMachineName",
            error.to_string(),
            "the host name does not keep the rule, or --name is misspelt",
            "join with another name: lifeboat agent join --name NAME",
        ),
        VaultError::DuplicateName(_) => Refused::new(
            "DuplicateMachineName",
            error.to_string(),
            "two machines have the same host name, or this one was installed anew and lost its identity",
            "join with another name (--name), or remove the old machine from the vault first",
        ),
        VaultError::NotFound { what: "vault", name } => Refused::new(
            "UnknownVault",
            format!("there is no vault {name}"),
            "--vault is misspelt, or the vault was removed",
            "see what there is on the server: lifeboat vaults list",
        ),
        VaultError::NotFound { .. } => Refused::new(
            "UnknownMachine",
            error.to_string(),
            "the machine was removed from the vault",
            "join it again: lifeboat agent join",
        ),
        _ => Refused::new(
            "VaultFailed",
            error.to_string(),
            "the server's disk is full or failing",
            "look at the server's log",
        ),
    }
}

fn of_pki(error: &PkiError) -> Refused {
    Refused::new(
        "CertificateFailed",
        error.to_string(),
        "the request was damaged on the way, or the server cannot read its keys",
        "try again; then look at the server's log",
    )
}

fn short(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

impl ControlService {
    fn enrol_now(&self, request: &EnrolRequest) -> Result<EnrolReply, Refused> {
        if request.protocol_version != PROTOCOL_VERSION {
            return Err(Refused::new(
                "ProtocolVersion",
                format!(
                    "the agent speaks protocol {} and the server {PROTOCOL_VERSION}",
                    request.protocol_version
                ),
                "agent and server are of different releases",
                "update the older of the two",
            ));
        }
        let invited = [
            (Invites::Machine, &request.join_token),
            (Invites::Server, &request.registration_key),
        ]
        .into_iter()
        .find(|(_, secret)| !secret.is_empty());
        if invited.is_none() && !self.pki.is_passphrase(&request.passphrase) {
            return Err(Refused::new(
                "WrongPassphrase",
                "the passphrase is not that of this configuration server",
                "it was misspelt, rotated since, or belongs to another server",
                "show it on the server: lifeboat server passphrase",
            ));
        }
        let skew = request.clock_unix_nanos.abs_diff(now_unix_nanos());
        if u128::from(skew) > ENROL_SKEW_MAX.as_nanos() {
            return Err(Refused::new(
                "ClockSkew",
                format!(
                    "the machine's clock is {} off the server's",
                    humantime::format_duration(Duration::from_secs(skew / 1_000_000_000))
                ),
                "one of the two clocks is wrong: no time service, or a wrong time zone in the firmware's clock",
                "set the clock on the wrong one (timedatectl), then join again",
            ));
        }
        let key = short(&request.machine_key);
        if key.is_empty() {
            return Err(Refused::new(
                "NoIdentity",
                "the machine has no identity of its own",
                "/etc/machine-id is missing or empty",
                "make it: systemd-machine-id-setup",
            ));
        }
        let (name, version) = (&request.machine_name, short(&request.agent_version));
        let wanted = short(&request.vault);
        let wanted = Some(wanted.as_str()).filter(|vault| !vault.is_empty());
        let enrolled = match invited {
            Some((invites, secret)) => self
                .vault
                .enrol_by_invitation(invites, secret, wanted, name, &key, &version),
            None => self
                .vault
                .enrol(wanted.unwrap_or(DEFAULT_VAULT), name, &key, &version),
        };
        let machine = enrolled.map_err(|error| of_vault(&error))?;
        let issued = self.issue(machine, &request.csr_pem)?;
        Ok(EnrolReply {
            machine_id: machine.as_bytes().to_vec(),
            certificate_pem: issued.pem,
            ca_pem: self.pki.ca_pem().to_owned(),
            not_after_unix: issued.not_after_unix,
            clock_unix_nanos: now_unix_nanos(),
        })
    }

    fn issue(&self, machine: MachineId, csr_pem: &str) -> Result<Issued, Refused> {
        let issued = self
            .pki
            .issue(&machine.to_string(), csr_pem, self.client_life)
            .map_err(|error| of_pki(&error))?;
        // Kept before it is handed out: a certificate that the vault does not know cannot be revoked.
        self.vault
            .certificate_issued(machine, &issued.serial, issued.not_after_unix)
            .map_err(|error| of_vault(&error))?;
        Ok(issued)
    }

    /// `now`: when the request arrived.
    fn heartbeat_now(
        &self,
        machine: MachineId,
        request: HeartbeatRequest,
        now: i64,
    ) -> Result<HeartbeatReply, Refused> {
        let inventory = match request.inventory_json.len() {
            0 => None,
            len if len > INVENTORY_BYTES_MAX => None,
            _ => serde_json::from_str(&request.inventory_json).ok(),
        };
        let disks = request.disks.iter().take(DISKS_MAX).filter_map(|disk| {
            Some(LiveDisk {
                disk: DiskId::from_slice(&disk.disk_id).ok()?,
                state: short(&disk.state),
                capture: short(&disk.capture),
                pending_bytes: disk.pending_bytes,
                done_bytes: disk.done_bytes,
                total_bytes: disk.total_bytes,
                read_bytes: disk.read_bytes,
                shipped_bytes: disk.shipped_bytes,
                changed_bytes: disk.changed_bytes,
            })
        });
        let troubles = request.troubles.iter().take(TROUBLES_MAX).map(|trouble| Trouble {
            code: short(&trouble.code),
            severity: short(&trouble.severity),
            message: short(&trouble.message),
            possible_causes: short(&trouble.causes),
            recommended_action: short(&trouble.action),
        });
        let heartbeat = Heartbeat {
            at_unix_nanos: now,
            clock_skew_nanos: request.clock_unix_nanos.saturating_sub(now),
            agent_version: short(&request.agent_version),
            inventory,
            boot_id: short(&request.boot_id),
            phase: short(&request.phase),
            generation: request.generation,
            resync_done: request.resync_done,
            disks: disks.collect(),
            troubles: troubles.collect(),
            halt: request.halt.as_ref().and_then(halt_report),
        };
        if let Some(report) = &request.update {
            self.vault
                .update_reported(
                    machine,
                    report.request,
                    &short(&report.state),
                    &short(&report.message),
                )
                .map_err(|error| of_vault(&error))?;
        }
        let had_inventory = heartbeat.inventory.is_some();
        self.vault
            .heartbeat(machine, heartbeat)
            .map_err(|error| of_vault(&error))?;
        let want_inventory = self.roster.heard(machine, had_inventory);
        let mut desired = self.vault.desired(machine).map_err(|error| of_vault(&error))?;
        let update = desired.update.take();
        let mut desired = as_message(desired);
        desired.update = match update {
            Some(request) => update_order(request),
            None => None,
        };
        Ok(HeartbeatReply {
            received_unix_nanos: now,
            clock_unix_nanos: now_unix_nanos(),
            desired: Some(desired),
            heartbeat_seconds: u32::try_from(self.heartbeat.as_secs().max(1)).unwrap_or(5),
            want_inventory,
        })
    }
}

/// To run this very executable.
fn update_order(request: u64) -> Option<AgentUpdate> {
    match executable::digest() {
        Ok(digest) => Some(AgentUpdate {
            request,
            version: executable::version().to_owned(),
            sha256: digest.sha256.to_vec(),
            size_bytes: digest.bytes,
        }),
        Err(error) => {
            tracing::warn!(%error, "this executable cannot be read: agents cannot be updated");
            None
        }
    }
}

fn as_message(desired: crate::vault::Desired) -> Desired {
    Desired {
        protect: desired.protect,
        generation: desired.generation,
        disks: desired
            .disks
            .into_iter()
            .map(|disk| DesiredDisk {
                disk_id: disk.id.as_bytes().to_vec(),
                stable_id: disk.stable_id,
                size_bytes: disk.size_bytes,
            })
            .collect(),
        crash_consistent_seconds: desired.crash_consistent_seconds,
        app_consistent_seconds: desired.app_consistent_seconds,
        resync_request: desired.resync_request,
        sync_request: desired.sync_request,
        app_sync_request: desired.app_sync_request,
        group_seconds: desired.group_seconds,
        fenced: desired.fenced.is_some(),
        fenced_reason: desired.fenced.unwrap_or_default(),
        update: None,
        line: desired.line,
        halt_job: desired
            .halt
            .map(|job| job.0.as_bytes().to_vec())
            .unwrap_or_default(),
    }
}

/// None: not one that can be understood.
fn halt_report(report: &crate::wire::proto::HaltReport) -> Option<HaltReport> {
    Some(HaltReport {
        job: JobId(uuid::Uuid::from_slice(&report.job_id).ok()?),
        point: PointId::from_slice(&report.point_id).ok(),
        error: (!report.error.is_empty()).then(|| short(&report.error)),
    })
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let peer = request.remote_addr();
        let (this, request) = (self.clone(), request.into_inner());
        let name = short(&request.machine_name);
        match blocking(move || this.enrol_now(&request)).await? {
            Ok(reply) => {
                tracing::info!(?peer, machine = %name, "a machine joined");
                Ok(Response::new(reply))
            }
            Err(refused) => {
                tracing::warn!(?peer, machine = %name, code = %refused.code, "a machine was not let in: {}", refused.message);
                Err(refused.status())
            }
        }
    }

    type CoordinateStream = ReceiverStream<Result<RoundOrder, Status>>;

    async fn coordinate(
        &self,
        request: Request<Streaming<RoundReport>>,
    ) -> Result<Response<Self::CoordinateStream>, Status> {
        let (machine, serial) = caller(&request)?;
        let this = self.clone();
        blocking(move || this.roster.authenticate(machine, &serial))
            .await?
            .map_err(|refused| refused.status())?;
        let (sender, orders) = tokio::sync::mpsc::channel(ROUND_ORDERS_MAX);
        let number = self.roster.groups().opened(machine, sender);
        let (roster, mut reports) = (self.roster.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                roster.groups().said(machine, report);
            }
            roster.groups().closed(machine, number);
        });
        Ok(Response::new(ReceiverStream::new(orders)))
    }

    type FetchAgentStream = ReceiverStream<Result<AgentPart, Status>>;

    async fn fetch_agent(
        &self,
        request: Request<FetchAgentRequest>,
    ) -> Result<Response<Self::FetchAgentStream>, Status> {
        let (machine, serial) = caller(&request)?;
        let (this, wanted) = (self.clone(), request.into_inner().sha256);
        let opened = blocking(move || {
            this.roster.authenticate(machine, &serial)?;
            let unreadable = |error: std::io::Error| {
                Refused::new(
                    "OtherExecutable",
                    format!("the server's executable cannot be read: {error}"),
                    "the server's disk fails",
                    "look at the server's log",
                )
            };
            if executable::digest().map_err(unreadable)?.sha256 != *wanted {
                return Err(Refused::new(
                    "OtherExecutable",
                    "the server runs another executable than the one ordered",
                    "the server was updated in between",
                    "nothing: the next heartbeat brings the new order",
                ));
            }
            executable::open().map_err(unreadable)
        });
        let mut file = opened.await?.map_err(|refused| refused.status())?;
        let (sender, stream) = tokio::sync::mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut data = vec![0; PART_BYTES];
                let part = match file.read(&mut data) {
                    Ok(0) => return,
                    Ok(count) => {
                        data.truncate(count);
                        Ok(AgentPart { data })
                    }
                    Err(error) => Err(Status::internal(error.to_string())),
                };
                let failed = part.is_err();
                // The agent went away, or was told.
                if sender.blocking_send(part).is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let (machine, serial) = caller(&request)?;
        let (this, csr) = (self.clone(), request.into_inner().csr_pem);
        let reply = blocking(move || {
            this.roster.authenticate(machine, &serial)?;
            this.issue(machine, &csr)
        });
        let issued = reply.await?.map_err(|refused| refused.status())?;
        Ok(Response::new(RenewReply {
            certificate_pem: issued.pem,
            not_after_unix: issued.not_after_unix,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let now = now_unix_nanos();
        let (machine, serial) = caller(&request)?;
        let (this, request) = (self.clone(), request.into_inner());
        let reply = blocking(move || {
            this.roster.authenticate(machine, &serial)?;
            this.heartbeat_now(machine, request, now)
        });
        Ok(Response::new(reply.await?.map_err(|refused| refused.status())?))
    }
}

/// Refused only when revoked: a machine whose renewal was lost on the way still has the certificate before it.
pub(super) fn admit_certificate(vault: &Vault, machine: MachineId, serial: &str) -> Result<(), Refused> {
    match vault.certificate_status(machine, serial) {
        Ok(CertificateStatus::Valid | CertificateStatus::Unknown) => Ok(()),
        Ok(CertificateStatus::Revoked) => Err(Refused::new(
            "CertificateRevoked",
            "the certificate of this machine was revoked",
            "an administrator removed or locked the machine",
            "join it again, if it is meant to be protected: lifeboat agent join",
        )),
        Err(error) => Err(of_vault(&error)),
    }
}

/// The life that production uses.
pub const DEFAULT_CLIENT_LIFE: Duration = CLIENT_LIFE;
