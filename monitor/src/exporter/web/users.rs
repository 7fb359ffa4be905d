//! Users and their passwords. The duration of a check does not reveal which users exist.

use std::{collections::BTreeMap, fmt, hint, str::FromStr as _, sync::Mutex};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bcrypt::HashParts;
use ring::{error::Unspecified, hmac, rand::SystemRandom};

use super::config_error::Problem;
use crate::exporter::lock;

/// `basic_auth_users` of the web configuration.
#[derive(Default)]
pub(super) struct Users {
    hashes: BTreeMap<String, Hash>,
    /// The highest bcrypt cost of all users.
    cost: u32,
}

struct Hash {
    text: String,
    cost: u32,
}

impl fmt::Debug for Users {
    /// Leaves the hashes out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.hashes.keys()).finish()
    }
}

/// The user name and password that a client sends.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    name: String,
    password: Vec<u8>,
}

impl Credentials {
    /// Parses the value of an `Authorization` header. `None`: it is not valid basic authentication.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (scheme, rest) = header.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(rest.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = decoded.split_at(colon);
        Some(Self {
            // A name that is not UTF-8 belongs to no user, and checking it costs as much as any
            // other.
            name: String::from_utf8_lossy(name).into_owned(),
            password: password.get(1..)?.to_vec(),
        })
    }
}

/// The salt for hashing that is done only to spend time.
const DECOY_SALT: [u8; 16] = *b"nobody's to know";

impl Users {
    /// # Errors
    /// A name that no client can send, or a hash that no password can match.
    pub(super) fn add(&mut self, name: String, hash: &str) -> Result<(), Problem> {
        if name.is_empty() || name.contains(':') {
            return Err(Problem::UserName);
        }
        let wrong = |reason: &str| Problem::Hash(reason.to_owned());
        if hash.is_empty() {
            return Err(wrong("it is empty"));
        }
        let prefixes = ["$2a$", "$2b$", "$2y$"];
        if !prefixes.iter().any(|prefix| hash.starts_with(prefix)) {
            return Err(wrong("it does not start with $2a$, $2b$ or $2y$"));
        }
        let parts = HashParts::from_str(hash).map_err(|error| wrong(&error.to_string()))?;
        let cost = parts.get_cost();
        if !(4..=31).contains(&cost) {
            return Err(wrong("its cost is not between 4 and 31"));
        }
        self.cost = self.cost.max(cost);
        let text = hash.to_owned();
        self.hashes.insert(name, Hash { text, cost });
        Ok(())
    }

    /// Whether there are no users, so that no authentication is required.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The cost of checking a password: 2 to this power rounds, for every name.
    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// Whether this is the user's password. Takes long, and equally long for every name: a hash of
    /// cost c takes 2^c rounds, and 2^c + 2^c + 2^(c+1) + … + 2^(m-1) is 2^m.
    pub(super) fn check(&self, credentials: &Credentials) -> bool {
        let Some(hash) = self.hashes.get(&credentials.name) else {
            self.work(credentials, self.cost);
            return false;
        };
        let right = bcrypt::verify(&credentials.password, &hash.text).unwrap_or(false);
        for cost in hash.cost..self.cost {
            self.work(credentials, cost);
        }
        right
    }

    fn work(&self, credentials: &Credentials, cost: u32) {
        let _ = hint::black_box(bcrypt::hash_with_salt(
            &credentials.password,
            cost,
            DECOY_SALT,
        ));
    }
}

/// Passwords that were correct before, so that not every scrape costs a hash.
///
/// Only correct passwords are kept, one per user, so that wrong guesses cannot displace them. What
/// is kept is a digest with a random key of this process. It includes the user's hash, so that a
/// changed password is checked again.
pub(super) struct Remembered {
    key: hmac::Key,
    digests: Mutex<BTreeMap<String, hmac::Tag>>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Remembered")
    }
}

impl Remembered {
    /// # Errors
    /// The system provides no random numbers.
    pub(super) fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            digests: Mutex::default(),
        })
    }

    /// Whether these credentials were correct before and still are.
    pub(super) fn holds(&self, users: &Users, credentials: &Credentials) -> bool {
        let text = digested(users, credentials);
        let digests = lock(&self.digests);
        let known = digests.get(&credentials.name);
        let right = match known {
            Some(tag) => hmac::verify(&self.key, &text, tag.as_ref()),
            // The same amount of work for an unknown name.
            None => hmac::verify(&self.key, &text, &[0; 32]),
        };
        right.is_ok() && users.hashes.contains_key(&credentials.name)
    }

    /// Remembers credentials that [`Users::check`] found correct.
    pub(super) fn keep(&self, users: &Users, credentials: &Credentials) {
        let tag = hmac::sign(&self.key, &digested(users, credentials));
        let mut digests = lock(&self.digests);
        digests.retain(|name, _| users.hashes.contains_key(name));
        digests.insert(credentials.name.clone(), tag);
    }
}

/// The user, hash and password, each preceded by its length.
fn digested(users: &Users, credentials: &Credentials) -> Vec<u8> {
    let hash = users.hashes.get(&credentials.name);
    let hash = hash.map_or(&[][..], |hash| hash.text.as_bytes());
    let mut text = Vec::new();
    for part in [credentials.name.as_bytes(), hash, &credentials.password] {
        text.extend_from_slice(&part.len().to_le_bytes());
        text.extend_from_slice(part);
    }
    text
}

#[cfg(test)]
mod tests;
