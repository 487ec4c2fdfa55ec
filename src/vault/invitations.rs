//! Secrets that let something in once: join tokens of machines, registration keys of servers.
//!
//! Only a hash is kept. What is used, expired or revoked stays for a while, so that whoever comes with it is told why it is
//! refused. The secret names the site that made it; that tells a foreign one from one that was never made.
use super::{Vault, VaultError, machines, secret, vault_id};
use crate::block::MachineId;
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Transaction, params};
use std::time::Duration;

/// A join token is for the next minutes, not for a note on the wall.
pub const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(3600);
pub const JOIN_TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of the reference model.
pub const REGISTRATION_KEY_LIFE: Duration = Duration::from_secs(5 * 24 * 3600);
/// What is over is remembered this long.
const REMEMBERED_NANOS: i64 = 30 * 24 * 3600 * 1_000_000_000;
const SECRET_LEN_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invites {
    Machine,
    Server,
}

impl Invites {
    fn word(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Server => "server",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Machine => crate::wire::JOIN_TOKEN_PREFIX,
            Self::Server => crate::wire::REGISTRATION_KEY_PREFIX,
        }
    }

    /// Codes for foreign, unknown, used, expired, revoked; what it is called; how a new one is made.
    fn words(self) -> ([&'static str; 5], &'static str, &'static str) {
        match self {
            Self::Machine => (
                [
                    "ForeignToken",
                    "UnknownToken",
                    "TokenUsed",
                    "TokenExpired",
                    "TokenRevoked",
                ],
                "join token",
                "make a new one on the server: lifeboat server join-token",
            ),
            Self::Server => (
                [
                    "ForeignRegistrationKey",
                    "UnknownRegistrationKey",
                    "RegistrationKeyUsed",
                    "RegistrationKeyExpired",
                    "RegistrationKeyRevoked",
                ],
                "registration key",
                "make a new one in the vault: lifeboat vault registration-key",
            ),
        }
    }
}

/// Shown this once.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    pub id: i64,
    pub secret: String,
    pub expires_unix_nanos: i64,
    /// Of the site that made it.
    pub site: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    pub id: i64,
    pub made_by: String,
    pub created_unix_nanos: i64,
    pub expires_unix_nanos: i64,
    pub used_unix_nanos: Option<i64>,
    pub used_by: Option<String>,
    pub revoked: bool,
}

impl Invitation {
    /// Valid, Used, Expired or Revoked.
    pub fn state(&self, now: i64) -> &'static str {
        if self.used_unix_nanos.is_some() {
            "Used"
        } else if self.revoked {
            "Revoked"
        } else if self.expires_unix_nanos <= now {
            "Expired"
        } else {
            "Valid"
        }
    }
}

/// 48 random bits, made once per database.
fn site(transaction: &Transaction<'_>) -> Result<String, VaultError> {
    let fresh = hex::encode(&uuid::Uuid::new_v4().as_bytes()[..6]);
    transaction.execute(
        "INSERT INTO settings (key, value) VALUES ('site', ?1) ON CONFLICT (key) DO NOTHING",
        [fresh],
    )?;
    Ok(
        transaction.query_row("SELECT value FROM settings WHERE key = 'site'", [], |row| {
            row.get(0)
        })?,
    )
}

/// Takes the secret, once; the vault it is for.
fn take(
    transaction: &Transaction<'_>,
    invites: Invites,
    given: &str,
    by: &str,
    now: i64,
) -> Result<(i64, String), VaultError> {
    let ([foreign, unknown, used_code, expired, revoked_code], what, action) = invites.words();
    let no = |code, message: String, causes| Err(VaultError::refused(code, message, causes, action));
    let given = given.trim();
    let own_site = site(transaction)?;
    let their_site = given
        .strip_prefix(invites.prefix())
        .filter(|_| given.len() <= SECRET_LEN_MAX)
        .and_then(|rest| rest.split_once('_'))
        .map(|(site, _)| site);
    if their_site.is_some_and(|site| site != own_site) {
        return no(
            foreign,
            format!("the {what} was made by another site"),
            "it belongs to another configuration server, or this server's database was made anew since",
        );
    }
    type Row = (i64, i64, String, i64, Option<i64>, Option<String>, bool);
    let found: Option<Row> = transaction
        .query_row(
            "SELECT invitations.id, vault, vaults.name, expires, used, used_by, revoked IS NOT NULL
             FROM invitations JOIN vaults ON vaults.id = vault WHERE hash = ?1 AND kind = ?2",
            params![secret::digest(given), invites.word()],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                    row.get(5)?,
                    row.get(6)?,
                ))
            },
        )
        .optional()?;
    let Some((id, vault, name, expires, used, used_by, revoked)) = found else {
        return no(
            unknown,
            format!("there is no such {what}"),
            "it was not copied whole, or it ended long ago",
        );
    };
    let ago = |then: i64| super::health::age(now - then);
    if let Some(used) = used {
        return no(
            used_code,
            format!(
                "the {what} was used {} ago, by {}",
                ago(used),
                used_by.unwrap_or_default()
            ),
            "each is good for one; the command was given twice, or on two machines",
        );
    }
    if revoked {
        return no(
            revoked_code,
            format!("the {what} was revoked"),
            "an administrator took it back",
        );
    }
    if expires <= now {
        return no(
            expired,
            format!("the {what} expired {} ago", ago(expires)),
            "it was kept for too long, or this server's clock is ahead",
        );
    }
    transaction.execute(
        "UPDATE invitations SET used = ?2, used_by = ?3 WHERE id = ?1",
        params![id, now, by],
    )?;
    Ok((vault, name))
}

impl Vault {
    pub fn invite(
        &self,
        invites: Invites,
        vault: &str,
        made_by: &str,
        life: Duration,
    ) -> Result<NewInvitation, VaultError> {
        let now = now_unix_nanos();
        let expires = now.saturating_add(i64::try_from(life.as_nanos()).unwrap_or(i64::MAX));
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let site = site(transaction)?;
            let secret = secret::token(&format!("{}{site}", invites.prefix()));
            transaction.execute(
                "DELETE FROM invitations WHERE max(expires, ifnull(used, 0), ifnull(revoked, 0)) < ?1",
                [now - REMEMBERED_NANOS],
            )?;
            transaction.execute(
                "INSERT INTO invitations (kind, hash, vault, made_by, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![invites.word(), secret::digest(&secret), vault, made_by, now, expires],
            )?;
            Ok(NewInvitation {
                id: transaction.last_insert_rowid(),
                secret,
                expires_unix_nanos: expires,
                site,
            })
        })
    }

    /// The newest first.
    pub fn invitations(&self, invites: Invites, vault: &str) -> Result<Vec<Invitation>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(
                    "SELECT id, made_by, created, expires, used, used_by, revoked IS NOT NULL FROM invitations
                     WHERE vault = ?1 AND kind = ?2 ORDER BY id DESC",
                )?
                .query_map(params![vault, invites.word()], |row| {
                    Ok(Invitation {
                        id: row.get(0)?,
                        made_by: row.get(1)?,
                        created_unix_nanos: row.get(2)?,
                        expires_unix_nanos: row.get(3)?,
                        used_unix_nanos: row.get(4)?,
                        used_by: row.get(5)?,
                        revoked: row.get(6)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn revoke_invitation(&self, invites: Invites, vault: &str, id: i64) -> Result<(), VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let changed = transaction.execute(
                "UPDATE invitations SET revoked = ifnull(revoked, ?4) WHERE id = ?1 AND vault = ?2 AND kind = ?3",
                params![id, vault, invites.word(), now_unix_nanos()],
            )?;
            if changed == 0 {
                return Err(VaultError::NotFound {
                    what: invites.words().1,
                    name: id.to_string(),
                });
            }
            Ok(())
        })
    }

    /// As [`Vault::enrol`], let in by a join token or a registration key, which is spent with it. `vault`: the one that is
    /// meant; None: the one that the secret is of.
    pub fn enrol_by_invitation(
        &self,
        invites: Invites,
        secret: &str,
        vault: Option<&str>,
        name: &str,
        machine_key: &str,
        version: &str,
    ) -> Result<MachineId, VaultError> {
        self.enrol_by_invitation_at(
            invites,
            secret,
            vault,
            name,
            machine_key,
            version,
            now_unix_nanos(),
        )
    }

    #[allow(clippy::too_many_arguments)] // the same and the instant
    fn enrol_by_invitation_at(
        &self,
        invites: Invites,
        secret: &str,
        vault: Option<&str>,
        name: &str,
        machine_key: &str,
        version: &str,
        now: i64,
    ) -> Result<MachineId, VaultError> {
        machines::check_enrolment(name, machine_key)?;
        self.write(|transaction| {
            let (id, own) = take(transaction, invites, secret, name, now)?;
            if let Some(vault) = vault.filter(|vault| !vault.eq_ignore_ascii_case(&own)) {
                // Refused: the transaction is undone, the secret stays good for its own vault.
                let ([foreign, ..], what, action) = invites.words();
                return Err(VaultError::refused(
                    foreign,
                    format!("the {what} is one of the vault {own}, not of {vault}"),
                    "the wrong one was taken, or --vault is misspelt",
                    action,
                ));
            }
            machines::enrol(transaction, id, name, machine_key, version)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::DEFAULT_VAULT;

    const HOUR: Duration = Duration::from_secs(3600);

    fn vault() -> (tempfile::TempDir, Vault) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(&folder.path().join("vault.db")).unwrap();
        (folder, vault)
    }

    fn code<T: std::fmt::Debug>(result: Result<T, VaultError>) -> String {
        match result {
            Err(VaultError::Refused(refusal)) => {
                assert!(!refusal.possible_causes.is_empty() && !refusal.recommended_action.is_empty());
                refusal.code.to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_lets_one_machine_in_and_says_why_it_refuses_the_next() {
        let (folder, vault) = vault();
        let token = |life| {
            vault
                .invite(Invites::Machine, DEFAULT_VAULT, "admin", life)
                .unwrap()
        };
        let enrol = |token: &str, name: &str| {
            vault.enrol_by_invitation(Invites::Machine, token, None, name, &format!("key {name}"), "1")
        };
        let first = token(HOUR);
        // A join that fails does not spend the token.
        assert!(matches!(
            enrol(&first.secret, "-bad-"),
            Err(VaultError::BadName(_))
        ));
        vault.enrol(DEFAULT_VAULT, "taken", "other key", "1").unwrap();
        assert!(matches!(
            enrol(&first.secret, "taken"),
            Err(VaultError::DuplicateName(_))
        ));
        let id = enrol(&format!(" {}\n", first.secret), "web1").unwrap();
        assert_eq!(vault.find_machine(DEFAULT_VAULT, "web1").unwrap().id, id);
        assert_eq!(code(enrol(&first.secret, "web2")), "TokenUsed");
        assert_eq!(code(enrol(&token(Duration::ZERO).secret, "web2")), "TokenExpired");
        let revoked = token(HOUR);
        vault
            .revoke_invitation(Invites::Machine, DEFAULT_VAULT, revoked.id)
            .unwrap();
        assert_eq!(code(enrol(&revoked.secret, "web2")), "TokenRevoked");
        let (_other, elsewhere) = self::vault();
        let foreign = elsewhere
            .invite(Invites::Machine, DEFAULT_VAULT, "admin", HOUR)
            .unwrap();
        assert_eq!(code(enrol(&foreign.secret, "web2")), "ForeignToken");
        let mut short = token(HOUR).secret;
        short.pop();
        for bad in [short.as_str(), "", "lbj_", "lbj", &"x".repeat(5000)] {
            assert_eq!(code(enrol(bad, "web2")), "UnknownToken", "{bad}");
        }
        let key = vault
            .invite(Invites::Server, DEFAULT_VAULT, "admin", HOUR)
            .unwrap();
        assert_eq!(code(enrol(&key.secret, "web2")), "UnknownToken");
        assert!(vault.find_machine(DEFAULT_VAULT, "web2").is_err());
        let states: Vec<_> = vault
            .invitations(Invites::Machine, DEFAULT_VAULT)
            .unwrap()
            .iter()
            .map(|row| row.state(now_unix_nanos()))
            .collect();
        assert_eq!(states, ["Valid", "Revoked", "Expired", "Used"]);
        // Only the hash is in the files of the database.
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let random = first.secret.rsplit_once('_').unwrap().1.as_bytes();
            assert!(!bytes.windows(random.len()).any(|part| part == random));
        }
    }

    #[test]
    fn a_registration_key_is_good_for_five_days_and_one_server() {
        let (_folder, vault) = vault();
        let key = |life| {
            vault
                .invite(Invites::Server, DEFAULT_VAULT, "admin", life)
                .unwrap()
        };
        let made = key(REGISTRATION_KEY_LIFE);
        let late = made.expires_unix_nanos;
        assert_eq!(
            REGISTRATION_KEY_LIFE.as_secs(),
            432_000,
            "the reference model says five days"
        );
        let join = |key: &str, of: Option<&str>, now| {
            vault.enrol_by_invitation_at(Invites::Server, key, of, "web1", "key web1", "1", now)
        };
        let take = |key: &str, now| join(key, Some(DEFAULT_VAULT), now);
        assert_eq!(code(take(&made.secret, late)), "RegistrationKeyExpired");
        let id = take(&made.secret, late - 1).unwrap();
        assert_eq!(vault.find_machine(DEFAULT_VAULT, "web1").unwrap().id, id);
        assert_eq!(code(take(&made.secret, late - 1)), "RegistrationKeyUsed");
        assert_eq!(code(take(&made.secret, late + 1)), "RegistrationKeyUsed");
        let (_other, elsewhere) = self::vault();
        let foreign = elsewhere
            .invite(Invites::Server, DEFAULT_VAULT, "admin", REGISTRATION_KEY_LIFE)
            .unwrap();
        assert_eq!(code(take(&foreign.secret, late - 1)), "ForeignRegistrationKey");
        // Of another vault of the same site: refused, and still good for its own.
        vault
            .write(|transaction| {
                transaction.execute("INSERT INTO vaults (name, created) VALUES ('second', 0)", [])?;
                Ok(())
            })
            .unwrap();
        let made = key(REGISTRATION_KEY_LIFE);
        assert_eq!(
            code(join(&made.secret, Some("second"), late - 1)),
            "ForeignRegistrationKey"
        );
        join(&made.secret, None, late - 1).unwrap();
        let token = vault
            .invite(Invites::Machine, DEFAULT_VAULT, "admin", HOUR)
            .unwrap();
        assert_eq!(code(take(&token.secret, late - 1)), "UnknownRegistrationKey");
    }
}
