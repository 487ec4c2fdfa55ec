//! Joining and staying: who is let in, whose certificate ends, who is put out, and that each is told why on both sides.
mod support;
use lifeboat::agent::identity::Identity;
use lifeboat::agent::join::{JoinError, JoinSpec};
use lifeboat::agent::status_socket;
use lifeboat::block::MachineId;
use lifeboat::rt::now_unix_nanos;
use lifeboat::wire::proto::EnrolRequest;
use lifeboat::wire::proto::control_client::ControlClient;
use lifeboat::wire::{PROTOCOL_VERSION, Refused, SERVER_NAME};
use std::time::Duration;
use support::network::{Site, wait_for};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

#[test]
fn who_may_not_join_is_told_why() {
    let site = Site::new();
    let disk = site.folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let spec = || site.spec("web1", &disk);
    let code = |result: Result<Identity, JoinError>| match result {
        Err(JoinError::Refused(refused)) => {
            assert!(!refused.possible_causes.is_empty() && !refused.recommended_action.is_empty());
            refused.code
        }
        other => format!("{other:?}"),
    };
    let wrong = JoinSpec {
        passphrase: "wrong".into(),
        ..spec()
    };
    assert_eq!(code(site.join(&wrong)), "WrongPassphrase");
    let bad = JoinSpec {
        name: "-web".into(),
        ..spec()
    };
    assert_eq!(code(site.join(&bad)), "BadMachineName");
    let first = site.join(&spec()).unwrap();
    let other = JoinSpec {
        machine_key: "another machine".into(),
        ..spec()
    };
    assert_eq!(code(site.join(&other)), "DuplicateMachineName");
    // The same machine again keeps its id.
    assert_eq!(site.join(&spec()).unwrap().machine_id, first.machine_id);
    let strange = JoinSpec {
        fingerprint: format!("sha256:{}", "0".repeat(64)),
        ..spec()
    };
    assert!(matches!(
        site.join(&strange),
        Err(JoinError::Tls(lifeboat::wire::tls::TlsError::OtherCa { .. }))
    ));
    let misspelt = JoinSpec {
        fingerprint: "sha256:12".into(),
        ..spec()
    };
    assert!(matches!(
        site.join(&misspelt),
        Err(JoinError::Tls(lifeboat::wire::tls::TlsError::Fingerprint))
    ));
}

/// What a request of a machine whose clock or protocol is off is answered with.
fn refusal_of(site: &Site, clock_unix_nanos: i64, protocol_version: u32) -> String {
    let tls = ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(site.server().pki.ca_pem()));
    let endpoint = Endpoint::from_shared(format!("https://{}", site.address)).unwrap();
    let status = site.runtime.block_on(async {
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let request = EnrolRequest {
            passphrase: site.server().pki.passphrase(),
            machine_name: "web1".to_owned(),
            clock_unix_nanos,
            protocol_version,
            machine_key: "key".to_owned(),
            ..EnrolRequest::default()
        };
        ControlClient::new(channel).enrol(request).await.unwrap_err()
    });
    Refused::of_status(&status).unwrap().code
}

#[test]
fn a_clock_or_a_protocol_that_does_not_fit_is_refused() {
    let site = Site::new();
    let day = 24 * 3600 * 1_000_000_000;
    assert_eq!(
        refusal_of(&site, now_unix_nanos() - day, PROTOCOL_VERSION),
        "ClockSkew"
    );
    assert_eq!(
        refusal_of(&site, now_unix_nanos() + day, PROTOCOL_VERSION),
        "ClockSkew"
    );
    assert_eq!(
        refusal_of(&site, now_unix_nanos(), PROTOCOL_VERSION + 1),
        "ProtocolVersion"
    );
    assert_eq!(
        refusal_of(&site, now_unix_nanos(), PROTOCOL_VERSION),
        "CertificateFailed"
    );
}

fn trouble(site: &Site, name: &str, code: &str) -> Option<String> {
    let status = status_socket::ask(&site.state(name)).ok()?;
    let trouble = status.troubles.get(code)?;
    assert!(!trouble.possible_causes.is_empty() && !trouble.recommended_action.is_empty());
    Some(trouble.message.clone())
}

#[test]
fn a_certificate_is_renewed_in_time_and_its_end_is_said() {
    let mut site = Site::new();
    site.stop();
    site.client_life = Duration::from_secs(6);
    site.start();
    let disk = site.folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let first = site.join(&site.spec("web1", &disk)).unwrap();
    let agent = site.agent("web1");
    wait_for("a second certificate", || {
        let identity = Identity::load(&site.state("web1")).ok()?;
        (identity.certificate_pem != first.certificate_pem).then_some(())
    });
    wait_for("a heartbeat with it", || {
        status_socket::ask(&site.state("web1"))
            .ok()?
            .connected
            .then_some(())
    });
    // The agent sleeps past the end of its certificate.
    drop(agent);
    let now = Identity::load(&site.state("web1")).unwrap();
    wait_for("its end", || {
        (now_unix_nanos() / 1_000_000_000 > now.not_after_unix).then_some(())
    });
    let _agent = site.agent("web1");
    let message = wait_for("the agent to say so", || {
        trouble(&site, "web1", "CertificateExpired")
    });
    assert!(message.contains("expired"), "{message}");
    // And the server turns it away by itself.
    let refused = site.runtime.block_on(async {
        let channel = now.channel().unwrap();
        ControlClient::new(channel)
            .heartbeat(lifeboat::wire::proto::HeartbeatRequest::default())
            .await
    });
    assert!(refused.is_err());
}

#[test]
fn a_revoked_machine_is_put_out_and_may_join_again() {
    let site = Site::new();
    let disk = site.folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let identity = site.join(&site.spec("web1", &disk)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let agent = site.agent("web1");
    site.protect(machine);
    site.server().roster.revoke(machine).unwrap();
    let message = wait_for("the agent to say so", || {
        trouble(&site, "web1", "HeartbeatRefused")
    });
    assert!(message.contains("revoked"), "{message}");
    wait_for("the session to end", || {
        (!site.server().sessions.is_open(machine)).then_some(())
    });
    drop(agent);
    assert_eq!(
        site.join(&site.spec("web1", &disk)).unwrap().machine_id,
        identity.machine_id
    );
    let _agent = site.agent("web1");
    wait_for("a session", || {
        site.server().sessions.is_open(machine).then_some(())
    });
}
