//! E-mail over SMTP. One connection per message: alerts are rare, and a connection that is kept is one that breaks unseen.
use super::{AlertError, SEND_LIMIT, message};
use crate::rt::chain;
use crate::vault::{Delivery, EmailSettings, MailSecurity, Secret};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

fn bad(error: impl std::fmt::Display) -> AlertError {
    AlertError::BadMessage(error.to_string())
}

fn compose(email: &EmailSettings, delivery: &Delivery) -> Result<Message, AlertError> {
    let mut builder = Message::builder()
        .from(email.from.parse().map_err(bad)?)
        .subject(message::subject(delivery))
        // The same with every attempt: a mail server or reader that sees it twice can tell.
        .message_id(Some(format!("<{}@lifeboat.invalid>", delivery.id)))
        .header(ContentType::TEXT_PLAIN);
    for to in &email.to {
        builder = builder.to(to.parse().map_err(bad)?);
    }
    let mut mail = builder.body(message::text(delivery)).map_err(bad)?;
    // Keeps holiday answers away.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    mail.headers_mut()
        .insert_raw(HeaderValue::new(automatic, "auto-generated".to_owned()));
    Ok(mail)
}

fn tls(email: &EmailSettings) -> Result<TlsParameters, AlertError> {
    let wrong = |error: lettre::transport::smtp::Error| AlertError::BadTrust(error.to_string());
    let mut builder = TlsParameters::builder(email.server.clone());
    if let Some(pem) = &email.ca_pem {
        builder = builder.certificate_store(CertificateStore::None);
        for certificate in certificates(pem)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(wrong)
}

fn certificates(pem: &str) -> Result<Vec<Certificate>, AlertError> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| {
            let der = certificate.map_err(|error| AlertError::BadTrust(error.to_string()))?;
            Certificate::from_der(der.to_vec()).map_err(|error| AlertError::BadTrust(error.to_string()))
        })
        .collect()
}

pub(super) async fn send(
    email: &EmailSettings,
    password: Option<&Secret>,
    delivery: &Delivery,
) -> Result<(), AlertError> {
    let mail = compose(email, delivery)?;
    let security = {
        let email = email.clone();
        // Reads the system's list of authorities.
        super::blocking(move || {
            Ok(match email.security {
                MailSecurity::StartTls => Tls::Required(tls(&email)?),
                MailSecurity::Tls => Tls::Wrapper(tls(&email)?),
                MailSecurity::None => Tls::None,
            })
        })
        .await?
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.server)
        .port(email.port)
        .tls(security)
        .timeout(Some(SEND_LIMIT / 2));
    if let (Some(user), Some(password)) = (&email.user, password) {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    builder
        .build()
        .send(mail)
        .await
        .map(drop)
        .map_err(|error| AlertError::Mail {
            server: format!("{}:{}", email.server, email.port),
            answer: chain(&error),
        })
}
