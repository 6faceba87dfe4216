//! Users and their keys.

use super::{Done, limit, taken};
use crate::plain_text::{SHOWN_CHARS_MAX, masked};
use crate::registry::command::Options;
use crate::registry::document::{User, UserKey};
use crate::registry::draft::Draft;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::{Kind, Refusal};
use crate::registry::values::parse_key;
use crate::ssh::publickey::Fingerprint;

/// Keys of one user.
pub(in crate::registry) const KEYS_MAX: usize = 256;

impl Draft<'_> {
    pub(super) fn user_add(&mut self, name: &Label, keys: &[String], options: Options) -> Done {
        if self.model().users().contains_key(name) {
            self.known(&Principal::User(name.clone()))?;
            return taken(name, "another user");
        }
        let mut user = User { origin: options.origin, ..User::default() };
        for line in keys {
            let key = self.new_key(line)?;
            if user.keys.iter().any(|other| other.fingerprint == key.fingerprint) {
                return Err(Refusal::Already(format!("key {} is given twice", key.fingerprint)));
            }
            user.keys.push(key);
        }
        limit(user.keys.len(), KEYS_MAX, || format!("user `{name}` would have keys"))?;
        self.put_user(name, user);
        Ok(())
    }

    fn new_key(&self, line: &str) -> Result<UserKey, Refusal> {
        let key = parse_key(line)?;
        if let Ok(fingerprint) = key.fingerprint.parse::<Fingerprint>()
            && let Some(of) = self.model().user_of(&fingerprint.0)
        {
            return Err(Refusal::KeyTaken { fingerprint: key.fingerprint, of: of.clone() });
        }
        Ok(key)
    }

    pub(super) fn key_add(&mut self, name: &Label, line: &str) -> Done {
        self.known(&Principal::User(name.clone()))?;
        let mut user = self.user(name)?;
        user.keys.push(self.new_key(line)?);
        limit(user.keys.len(), KEYS_MAX, || format!("user `{name}` would have keys"))?;
        self.put_user(name, user);
        Ok(())
    }

    pub(super) fn key_remove(&mut self, name: &Label, fingerprint: &str) -> Done {
        let mut user = self.user(name)?;
        let count = user.keys.len();
        user.keys.retain(|key| key.fingerprint != fingerprint);
        if user.keys.len() == count {
            return Err(unknown_key(fingerprint));
        }
        self.put_user(name, user);
        Ok(())
    }

    /// In one step: whoever is in by this key stays, unless what the line says now forbids it.
    pub(super) fn key_set(&mut self, name: &Label, fingerprint: &str, line: &str) -> Done {
        self.known(&Principal::User(name.clone()))?;
        let mut user = self.user(name)?;
        let has = user.keys.iter_mut().find(|has| has.fingerprint == fingerprint);
        let Some(has) = has else { return Err(unknown_key(fingerprint)) };
        let key = parse_key(line)?;
        if key.fingerprint != fingerprint {
            return Err(Refusal::invalid(
                format_args!("the line holds key {}, not {fingerprint}", key.fingerprint),
                "add that one, and remove this one",
            ));
        }
        if *has == key {
            let what = format!("key {} of user `{name}` is so already", key.fingerprint);
            return Err(Refusal::Already(what));
        }
        *has = key;
        self.put_user(name, user);
        Ok(())
    }
}

fn unknown_key(fingerprint: &str) -> Refusal {
    Refusal::unknown(Kind::Key, masked(fingerprint, SHOWN_CHARS_MAX))
}
