//! Users, their roles, sessions and API tokens.
use super::roles::Role;
use super::{DEFAULT_VAULT, Vault, VaultError, secret, vault_id};
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first administrator.
pub const ADMINISTRATOR: &str = "admin";
const SECOND: i64 = 1_000_000_000;
/// A session ends after this, used or not.
const SESSION_NANOS: i64 = 12 * 3600 * SECOND;
/// A session that is not used ends after this.
const SESSION_IDLE_NANOS: i64 = 2 * 3600 * SECOND;
/// `last_used` is written this often.
const USED_WRITE_NANOS: i64 = 60 * SECOND;

/// Who is calling, as told by a session or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: String,
    /// Until the one-time password is changed, nothing else is allowed.
    pub must_change_password: bool,
    /// Name of the vault and role in it.
    pub roles: Vec<(String, Role)>,
    /// Of an API token; None: a session.
    pub token: Option<i64>,
}

impl Principal {
    pub fn role_in(&self, vault: &str) -> Option<Role> {
        self.roles
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(vault))
            .map(|(_, role)| *role)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    pub name: String,
    /// Grows with every change.
    pub revision: u64,
    pub must_change_password: bool,
    pub created_unix_nanos: i64,
    pub disabled: bool,
    pub roles: Vec<(String, Role)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: i64,
    pub name: String,
    pub user: String,
    pub role: Role,
    pub created_unix_nanos: i64,
    pub expires_unix_nanos: i64,
    pub last_used_unix_nanos: Option<i64>,
    pub revoked: bool,
}

/// Failed logins, in memory: a restart forgets them, which needs more rights than a login gives.
#[derive(Default)]
pub(super) struct Throttle(HashMap<String, Failures>);

struct Failures {
    count: u32,
    until: Instant,
}

const FREE_TRIES: u32 = 5;
/// From all addresses together, so that many addresses do not help.
const FREE_TRIES_OF_NAME: u32 = 50;
const DELAY_MAX: Duration = Duration::from_secs(15 * 60);
/// Names are chosen by the caller: forget all rather than grow.
const THROTTLED_MAX: usize = 10_000;

impl Throttle {
    fn keys(name: &str, origin: &str) -> [(String, u32); 2] {
        let name: String = name.to_lowercase().chars().take(64).collect();
        [
            (format!("{name}\n{origin}"), FREE_TRIES),
            (name, FREE_TRIES_OF_NAME),
        ]
    }

    fn check(&self, name: &str, origin: &str, now: Instant) -> Result<(), VaultError> {
        let wait = Self::keys(name, origin)
            .iter()
            .filter_map(|(key, _)| self.0.get(key))
            .map(|failures| failures.until.saturating_duration_since(now))
            .max()
            .unwrap_or_default();
        if wait.is_zero() {
            return Ok(());
        }
        Err(VaultError::Throttled {
            seconds: wait.as_secs() + 1,
        })
    }

    /// Counted before the password is looked at, so that many tries at once do not get in together.
    fn begin(&mut self, name: &str, origin: &str, now: Instant) -> Result<(), VaultError> {
        self.check(name, origin, now)?;
        if self.0.len() > THROTTLED_MAX {
            self.0.clear();
        }
        for (key, free) in Self::keys(name, origin) {
            let failures = self.0.entry(key).or_insert(Failures { count: 0, until: now });
            failures.count += 1;
            if let Some(over) = failures.count.checked_sub(free) {
                failures.until = now + Duration::from_secs(1 << over.min(10)).min(DELAY_MAX);
            }
        }
        Ok(())
    }

    fn succeeded(&mut self, name: &str, origin: &str) {
        for (key, _) in Self::keys(name, origin) {
            self.0.remove(&key);
        }
    }
}

fn user_id(transaction: &Transaction<'_>, name: &str) -> Result<i64, VaultError> {
    transaction
        .prepare_cached("SELECT id FROM users WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?
        .ok_or_else(|| VaultError::NotFound {
            what: "user",
            name: name.chars().take(80).collect(),
        })
}

/// As [`user_id`], when the user is as the caller read it; `revision` None: however it is.
fn user_at(transaction: &Transaction<'_>, name: &str, revision: Option<u64>) -> Result<i64, VaultError> {
    let id = user_id(transaction, name)?;
    let known: u64 = transaction
        .prepare_cached("SELECT revision FROM users WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    if revision.is_some_and(|revision| revision != known) {
        return Err(VaultError::Conflict {
            what: "user",
            name: name.to_owned(),
        });
    }
    Ok(id)
}

fn roles_of(transaction: &Transaction<'_>, user: i64) -> Result<Vec<(String, Role)>, VaultError> {
    let words: Vec<(String, String)> = transaction
        .prepare_cached(
            "SELECT vaults.name, role FROM role_assignments JOIN vaults ON vaults.id = vault
             WHERE user = ?1 ORDER BY vaults.name",
        )?
        .query_map([user], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    words
        .into_iter()
        .map(|(vault, role)| Ok((vault, role.parse()?)))
        .collect()
}

fn insert_user(
    transaction: &Transaction<'_>,
    name: &str,
    password_hash: &str,
    vault: &str,
    role: Role,
) -> Result<(), VaultError> {
    let taken: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM users WHERE name = ?1)",
        [name],
        |row| row.get(0),
    )?;
    if taken {
        return Err(VaultError::refused(
            "UserExists",
            format!("there is a user {name} already"),
            "the name was given before",
            "choose another name, or give this user a role",
        ));
    }
    transaction.execute(
        "INSERT INTO users (name, password_hash, must_change_password, created) VALUES (?1, ?2, 1, ?3)",
        params![name, password_hash, now_unix_nanos()],
    )?;
    let user = transaction.last_insert_rowid();
    assign(transaction, user, vault_id(transaction, vault)?, role)
}

fn assign(transaction: &Transaction<'_>, user: i64, vault: i64, role: Role) -> Result<(), VaultError> {
    transaction.execute(
        "INSERT INTO role_assignments (user, vault, role) VALUES (?1, ?2, ?3)
         ON CONFLICT (user, vault) DO UPDATE SET role = ?3",
        params![user, vault, role.word()],
    )?;
    Ok(())
}

/// Somebody must be left who can assign roles.
fn keep_an_owner(transaction: &Transaction<'_>, vault: i64) -> Result<(), VaultError> {
    let owners: i64 = transaction.query_row(
        "SELECT count(*) FROM role_assignments JOIN users ON users.id = user
         WHERE vault = ?1 AND role = 'Owner' AND disabled = 0",
        [vault],
        |row| row.get(0),
    )?;
    if owners > 0 {
        return Ok(());
    }
    Err(VaultError::refused(
        "LastOwner",
        "the vault would be left without an Owner",
        "this user is the last one who may assign roles",
        "make another user Owner first",
    ))
}

impl Vault {
    /// On the first start: makes the administrator, Owner of the default vault, and gives the one-time password, which is
    /// not kept anywhere. None: there are users already.
    pub fn first_start(&self) -> Result<Option<String>, VaultError> {
        let users: i64 = self.read(|transaction| {
            Ok(transaction.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?)
        })?;
        if users > 0 {
            return Ok(None);
        }
        let password = secret::one_time_password();
        let hash = secret::hash(&password)?;
        self.write(|transaction| insert_user(transaction, ADMINISTRATOR, &hash, DEFAULT_VAULT, Role::Owner))?;
        Ok(Some(password))
    }

    /// A new one-time password for a user, who is logged out everywhere.
    pub fn reset_password(&self, name: &str, revision: Option<u64>) -> Result<String, VaultError> {
        let password = secret::one_time_password();
        let hash = secret::hash(&password)?;
        self.write(|transaction| {
            let user = user_at(transaction, name, revision)?;
            transaction.execute(
                "UPDATE users SET password_hash = ?2, must_change_password = 1 WHERE id = ?1",
                params![user, hash],
            )?;
            transaction.execute("DELETE FROM sessions WHERE user = ?1", [user])?;
            Ok(())
        })?;
        Ok(password)
    }

    /// A session token. `origin`: the caller's address.
    pub fn login(&self, name: &str, password: &str, origin: &str) -> Result<String, VaultError> {
        self.throttle().begin(name, origin, Instant::now())?;
        let known: Option<(i64, String)> = self.read(|transaction| {
            Ok(transaction
                .query_row(
                    "SELECT id, password_hash FROM users WHERE name = ?1 AND disabled = 0",
                    [name],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?)
        })?;
        if !secret::verify(password, known.as_ref().map(|(_, hash)| hash.as_str()))? {
            return Err(VaultError::WrongPassword);
        }
        let Some((user, _)) = known else {
            return Err(VaultError::WrongPassword);
        };
        self.throttle().succeeded(name, origin);
        self.new_session(user)
    }

    fn new_session(&self, user: i64) -> Result<String, VaultError> {
        let token = secret::token("lbs");
        let now = now_unix_nanos();
        self.write(|transaction| {
            transaction.execute("DELETE FROM sessions WHERE expires < ?1", [now])?;
            transaction.execute(
                "INSERT INTO sessions (hash, user, created, last_used, expires) VALUES (?1, ?2, ?3, ?3, ?4)",
                params![secret::digest(&token), user, now, now + SESSION_NANOS],
            )?;
            Ok(())
        })?;
        Ok(token)
    }

    pub fn logout(&self, token: &str) -> Result<(), VaultError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM sessions WHERE hash = ?1", [secret::digest(token)])?;
            Ok(())
        })
    }

    /// The caller behind a session or an API token; None: it is not valid, or no longer.
    pub fn authenticate(&self, token: &str) -> Result<Option<Principal>, VaultError> {
        self.authenticate_at(token, now_unix_nanos())
    }

    pub(super) fn authenticate_at(&self, token: &str, now: i64) -> Result<Option<Principal>, VaultError> {
        let hash = secret::digest(token);
        if token.starts_with("lbt_") {
            return self.authenticate_token(&hash, now);
        }
        let found: Option<(i64, Principal)> = self.read(|transaction| {
            let row: Option<(i64, String, bool, i64)> = transaction
                .prepare_cached(
                    "SELECT users.id, name, must_change_password, last_used FROM sessions JOIN users ON users.id = user
                     WHERE hash = ?1 AND disabled = 0 AND expires > ?2 AND last_used > ?3",
                )?
                .query_row(params![hash, now, now - SESSION_IDLE_NANOS], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .optional()?;
            let Some((id, user, must_change_password, last_used)) = row else {
                return Ok(None);
            };
            let principal = Principal {
                user,
                must_change_password,
                roles: roles_of(transaction, id)?,
                token: None,
            };
            Ok(Some((last_used, principal)))
        })?;
        let Some((last_used, principal)) = found else {
            return Ok(None);
        };
        if now - last_used > USED_WRITE_NANOS {
            self.write(|transaction| {
                transaction.execute(
                    "UPDATE sessions SET last_used = ?2 WHERE hash = ?1",
                    params![hash, now],
                )?;
                Ok(())
            })?;
        }
        Ok(Some(principal))
    }

    fn authenticate_token(&self, hash: &[u8; 32], now: i64) -> Result<Option<Principal>, VaultError> {
        struct Row {
            id: i64,
            user: i64,
            name: String,
            vault: String,
            role: String,
            last_used: Option<i64>,
        }
        let found: Option<(Option<i64>, Principal)> = self.read(|transaction| {
            let row: Option<Row> = transaction
                .prepare_cached(
                    "SELECT api_tokens.id, users.id, users.name, vaults.name, role, last_used FROM api_tokens
                     JOIN users ON users.id = user JOIN vaults ON vaults.id = vault
                     WHERE hash = ?1 AND expires > ?2 AND revoked IS NULL AND disabled = 0",
                )?
                .query_row(params![hash, now], |row| {
                    Ok(Row {
                        id: row.get(0)?,
                        user: row.get(1)?,
                        name: row.get(2)?,
                        vault: row.get(3)?,
                        role: row.get(4)?,
                        last_used: row.get(5)?,
                    })
                })
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            // Never more than its user may do now.
            let limit = roles_of(transaction, row.user)?
                .into_iter()
                .find(|(vault, _)| *vault == row.vault);
            let roles = match limit {
                Some((vault, role)) => vec![(vault, role.min(row.role.parse()?))],
                None => Vec::new(),
            };
            let principal = Principal {
                user: row.name,
                must_change_password: false,
                roles,
                token: Some(row.id),
            };
            Ok(Some((row.last_used, principal)))
        })?;
        let Some((last_used, principal)) = found else {
            return Ok(None);
        };
        if last_used.is_none_or(|last| now - last > USED_WRITE_NANOS) {
            self.write(|transaction| {
                transaction.execute(
                    "UPDATE api_tokens SET last_used = ?2 WHERE hash = ?1",
                    params![hash, now],
                )?;
                Ok(())
            })?;
        }
        Ok(Some(principal))
    }

    /// Changes the caller's own password; all sessions of the user end but the one given in `keep`.
    pub fn change_password(
        &self,
        name: &str,
        current: &str,
        new: &str,
        keep: Option<&str>,
        origin: &str,
    ) -> Result<(), VaultError> {
        secret::check_new(new)?;
        if new == current {
            return Err(VaultError::Invalid {
                field: "newPassword",
                rule: "another one than the current password".to_owned(),
            });
        }
        self.throttle().begin(name, origin, Instant::now())?;
        let hash: String = self.read(|transaction| {
            let user = user_id(transaction, name)?;
            Ok(
                transaction.query_row("SELECT password_hash FROM users WHERE id = ?1", [user], |row| {
                    row.get(0)
                })?,
            )
        })?;
        if !secret::verify(current, Some(&hash))? {
            return Err(VaultError::WrongPassword);
        }
        self.throttle().succeeded(name, origin);
        let fresh = secret::hash(new)?;
        let keep = keep.map(secret::digest);
        self.write(|transaction| {
            let user = user_id(transaction, name)?;
            // Only over the password that was checked: two changes at once are not both done.
            let changed = transaction.execute(
                "UPDATE users SET password_hash = ?2, must_change_password = 0 WHERE id = ?1 AND password_hash = ?3",
                params![user, fresh, hash],
            )?;
            if changed == 0 {
                return Err(VaultError::WrongPassword);
            }
            transaction.execute(
                "DELETE FROM sessions WHERE user = ?1 AND (?2 IS NULL OR hash <> ?2)",
                params![user, keep],
            )?;
            Ok(())
        })
    }

    pub fn users(&self) -> Result<Vec<UserRow>, VaultError> {
        self.read(|transaction| {
            let rows: Vec<(i64, UserRow)> = transaction
                .prepare_cached(
                    "SELECT id, name, must_change_password, created, disabled, revision FROM users ORDER BY name",
                )?
                .query_map([], |row| {
                    Ok((
                        row.get(0)?,
                        UserRow {
                            name: row.get(1)?,
                            must_change_password: row.get(2)?,
                            created_unix_nanos: row.get(3)?,
                            disabled: row.get(4)?,
                            revision: row.get(5)?,
                            roles: Vec::new(),
                        },
                    ))
                })?
                .collect::<Result<_, _>>()?;
            rows.into_iter()
                .map(|(id, row)| {
                    Ok(UserRow {
                        roles: roles_of(transaction, id)?,
                        ..row
                    })
                })
                .collect()
        })
    }

    /// The one-time password of the new user.
    pub fn create_user(&self, name: &str, vault: &str, role: Role) -> Result<String, VaultError> {
        let fine = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'));
        if !fine {
            return Err(VaultError::Invalid {
                field: "name",
                rule: "1 to 64 letters, digits and -_.@".to_owned(),
            });
        }
        let password = secret::one_time_password();
        let hash = secret::hash(&password)?;
        self.write(|transaction| insert_user(transaction, name, &hash, vault, role))?;
        Ok(password)
    }

    /// None: takes the role away.
    pub fn assign_role(
        &self,
        name: &str,
        vault: &str,
        role: Option<Role>,
        revision: Option<u64>,
    ) -> Result<(), VaultError> {
        self.write(|transaction| {
            let user = user_at(transaction, name, revision)?;
            let vault = vault_id(transaction, vault)?;
            match role {
                Some(role) => assign(transaction, user, vault, role)?,
                None => {
                    transaction.execute(
                        "DELETE FROM role_assignments WHERE user = ?1 AND vault = ?2",
                        [user, vault],
                    )?;
                }
            }
            keep_an_owner(transaction, vault)
        })
    }

    /// Removes a user with its sessions, tokens and roles.
    pub fn remove_user(&self, name: &str, revision: Option<u64>) -> Result<(), VaultError> {
        self.write(|transaction| {
            let user = user_at(transaction, name, revision)?;
            transaction.execute("DELETE FROM users WHERE id = ?1", [user])?;
            let vaults: Vec<i64> = transaction
                .prepare("SELECT id FROM vaults")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            vaults
                .into_iter()
                .try_for_each(|vault| keep_an_owner(transaction, vault))
        })
    }

    /// A token of a user for programs; only its hash is kept. `role` may not exceed the user's own.
    pub fn create_token(
        &self,
        user: &str,
        vault: &str,
        name: &str,
        role: Role,
        valid: Duration,
    ) -> Result<(i64, String), VaultError> {
        if !(1..=64).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(VaultError::Invalid {
                field: "name",
                rule: "1 to 64 characters".to_owned(),
            });
        }
        let year = Duration::from_secs(366 * 86_400);
        if valid.is_zero() || valid > year {
            return Err(VaultError::Invalid {
                field: "expiresInDays",
                rule: "1 to 366".to_owned(),
            });
        }
        let token = secret::token("lbt");
        let now = now_unix_nanos();
        let expires = now + i64::try_from(valid.as_nanos()).unwrap_or(i64::MAX - now);
        let id = self.write(|transaction| {
            let id = user_id(transaction, user)?;
            let own = roles_of(transaction, id)?
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(vault));
            if own.is_none_or(|(_, own)| own < role) {
                return Err(VaultError::refused(
                    "RoleTooHigh",
                    format!("{user} is not {} in {vault}", role.word()),
                    "a token may do no more than the user it belongs to",
                    "ask for a lower role",
                ));
            }
            transaction.execute(
                "INSERT INTO api_tokens (hash, name, user, vault, role, created, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    secret::digest(&token),
                    name,
                    id,
                    vault_id(transaction, vault)?,
                    role.word(),
                    now,
                    expires
                ],
            )?;
            Ok(transaction.last_insert_rowid())
        })?;
        Ok((id, token))
    }

    pub fn tokens(&self, vault: &str) -> Result<Vec<TokenRow>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows: Vec<(TokenRow, String)> = transaction
                .prepare_cached(
                    "SELECT api_tokens.id, api_tokens.name, users.name, role, api_tokens.created, expires, last_used,
                         revoked IS NOT NULL FROM api_tokens JOIN users ON users.id = user
                     WHERE vault = ?1 ORDER BY api_tokens.id",
                )?
                .query_map([vault], |row| {
                    Ok((
                        TokenRow {
                            id: row.get(0)?,
                            name: row.get(1)?,
                            user: row.get(2)?,
                            role: Role::Reader,
                            created_unix_nanos: row.get(4)?,
                            expires_unix_nanos: row.get(5)?,
                            last_used_unix_nanos: row.get(6)?,
                            revoked: row.get(7)?,
                        },
                        row.get(3)?,
                    ))
                })?
                .collect::<Result<_, _>>()?;
            rows.into_iter()
                .map(|(row, role)| {
                    Ok(TokenRow {
                        role: role.parse()?,
                        ..row
                    })
                })
                .collect()
        })
    }

    pub fn revoke_token(&self, vault: &str, id: i64) -> Result<(), VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let changed = transaction.execute(
                "UPDATE api_tokens SET revoked = ifnull(revoked, ?3) WHERE id = ?1 AND vault = ?2",
                params![id, vault, now_unix_nanos()],
            )?;
            if changed == 0 {
                return Err(VaultError::NotFound {
                    what: "API token",
                    name: id.to_string(),
                });
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::vault;
    use super::*;

    #[test]
    fn the_one_time_password_lets_in_once_it_is_changed() {
        let (_folder, vault) = vault();
        let once = vault.first_start().unwrap().unwrap();
        assert_eq!(vault.first_start().unwrap(), None);
        assert!(matches!(
            vault.login("admin", "wrong", "a").unwrap_err(),
            VaultError::WrongPassword
        ));
        assert!(matches!(
            vault.login("nobody", "wrong", "a").unwrap_err(),
            VaultError::WrongPassword
        ));
        let token = vault.login("Admin", &once, "a").unwrap();
        let principal = vault.authenticate(&token).unwrap().unwrap();
        assert!(principal.must_change_password);
        assert_eq!(principal.role_in(DEFAULT_VAULT), Some(Role::Owner));
        assert_eq!(principal.role_in("other"), None);
        let other = vault.login("admin", &once, "a").unwrap();
        for (new, current) in [("short", &*once), (&*once, &*once)] {
            let refused = vault
                .change_password("admin", current, new, None, "a")
                .unwrap_err();
            assert!(matches!(refused, VaultError::Invalid { .. }), "{refused:?}");
        }
        vault
            .change_password("admin", &once, "correct horse", Some(&token), "a")
            .unwrap();
        assert!(!vault.authenticate(&token).unwrap().unwrap().must_change_password);
        assert_eq!(
            vault.authenticate(&other).unwrap(),
            None,
            "the other session is over"
        );
        assert!(vault.login("admin", &once, "a").is_err());
        vault.logout(&token).unwrap();
        assert_eq!(vault.authenticate(&token).unwrap(), None);
        let reset = vault.reset_password("admin", None).unwrap();
        assert!(vault.login("admin", &reset, "a").is_ok());
    }

    #[test]
    fn sessions_end() {
        let (_folder, vault) = vault();
        let once = vault.first_start().unwrap().unwrap();
        let token = vault.login("admin", &once, "a").unwrap();
        let now = now_unix_nanos();
        let hour = 3600 * SECOND;
        // Used every hour it lives for its twelve hours; unused it ends after two.
        for hours in 1..12 {
            assert!(
                vault
                    .authenticate_at(&token, now + hours * hour)
                    .unwrap()
                    .is_some(),
                "{hours}"
            );
        }
        assert!(
            vault
                .authenticate_at(&token, now + 12 * hour + hour / 2)
                .unwrap()
                .is_none()
        );
        let idle = vault.login("admin", &once, "a").unwrap();
        assert!(
            vault
                .authenticate_at(&idle, now_unix_nanos() + 2 * hour + SECOND)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn guessing_is_slowed_down_per_address_and_name() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..5 {
            throttle.begin("admin", "1.2.3.4", now).unwrap();
        }
        let wait = |throttle: &Throttle, origin: &str, now| match throttle.check("ADMIN", origin, now) {
            Err(VaultError::Throttled { seconds }) => seconds,
            _ => 0,
        };
        assert_eq!(wait(&throttle, "1.2.3.4", now), 2);
        assert_eq!(
            wait(&throttle, "5.6.7.8", now),
            0,
            "the administrator is not locked out elsewhere"
        );
        let mut later = now;
        for _ in 0..20 {
            later += DELAY_MAX;
            throttle.begin("admin", "1.2.3.4", later).unwrap();
        }
        assert!(wait(&throttle, "1.2.3.4", later) > 600);
        for place in 0..25 {
            throttle
                .begin("admin", &format!("10.0.0.{place}"), later)
                .unwrap();
        }
        assert!(
            wait(&throttle, "9.9.9.9", later) > 0,
            "many addresses do not help"
        );
        throttle.succeeded("admin", "1.2.3.4");
        assert_eq!(wait(&throttle, "1.2.3.4", later), 0);
    }

    #[test]
    fn tokens_never_exceed_their_user() {
        let (_folder, vault) = vault();
        vault.first_start().unwrap();
        vault.create_user("op", DEFAULT_VAULT, Role::Operator).unwrap();
        let day = Duration::from_secs(86_400);
        let refused = vault
            .create_token("op", DEFAULT_VAULT, "ci", Role::Contributor, day)
            .unwrap_err();
        assert!(matches!(refused, VaultError::Refused(refusal) if refusal.code == "RoleTooHigh"));
        let (id, token) = vault
            .create_token("op", DEFAULT_VAULT, "ci", Role::Operator, day)
            .unwrap();
        let role = |at| {
            vault
                .authenticate_at(&token, at)
                .unwrap()
                .map(|principal| principal.role_in(DEFAULT_VAULT))
        };
        let now = now_unix_nanos();
        assert_eq!(role(now), Some(Some(Role::Operator)));
        vault
            .assign_role("op", DEFAULT_VAULT, Some(Role::Reader), None)
            .unwrap();
        assert_eq!(role(now), Some(Some(Role::Reader)), "the user was given less");
        assert_eq!(role(now + 86_401 * SECOND), None, "expired");
        vault.revoke_token(DEFAULT_VAULT, id).unwrap();
        assert_eq!(role(now), None);
        let last = vault.tokens(DEFAULT_VAULT).unwrap().remove(0);
        assert!(last.revoked && last.last_used_unix_nanos.is_some());
    }

    #[test]
    fn an_owner_is_always_left() {
        let (_folder, vault) = vault();
        vault.first_start().unwrap();
        let last = |result: Result<(), VaultError>| matches!(result, Err(VaultError::Refused(refusal)) if refusal.code == "LastOwner");
        assert!(last(vault.assign_role(
            "admin",
            DEFAULT_VAULT,
            Some(Role::Reader),
            None
        )));
        assert!(last(vault.assign_role("admin", DEFAULT_VAULT, None, None)));
        assert!(last(vault.remove_user("admin", None)));
        vault.create_user("second", DEFAULT_VAULT, Role::Owner).unwrap();
        vault.remove_user("admin", None).unwrap();
        assert_eq!(vault.users().unwrap().len(), 1);
    }
}
