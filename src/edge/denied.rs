//! What a connection offered in vain, for its log line: bounded, and a fact told from a claim.

use std::fmt;

use super::gate::Refusal;
use crate::ssh::publickey::Fingerprint;

/// What a refusal was judged by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// By what is known.
    Fact,
    /// By what a certificate says of which nobody has verified that its CA signed it: anybody's
    /// words, in anybody's name.
    Claim,
}

/// Something that was offered in vain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Vain {
    /// The plain key, if that much is known.
    pub key: Option<Fingerprint>,
    /// The reason against it.
    pub why: Refusal,
    /// Whether that is a fact.
    pub word: Word,
}

impl Vain {
    const fn is_of_a_stranger(&self) -> bool {
        matches!(self.word, Word::Claim) || self.why.is_of_a_stranger()
    }
}

/// Keys remembered of one connection.
const DENIED_MAX: usize = 6;

/// What a connection offered in vain: for its log line, if nobody gets in. Takes a pointer
/// where nothing was.
#[derive(Clone, Debug, Default)]
pub struct Denied(Option<Box<Noted>>);

#[derive(Clone, Debug, Default)]
struct Noted {
    /// At most [`DENIED_MAX`], each key once with the last reason against it, and once with the
    /// last one that is claimed.
    all: Vec<Vain>,
    /// Further ones, of which some may be the same.
    more: u32,
    /// One of them all was somebody's.
    of_somebody: bool,
    /// The first user name that was asked for, as sent; the protocol bounds it.
    login: Box<str>,
}

impl Denied {
    /// One more. `login` as sent.
    pub(super) fn note(&mut self, login: &str, vain: Vain) {
        let noted = self.0.get_or_insert_default();
        if noted.login.is_empty() {
            noted.login = login.into();
        }
        noted.of_somebody |= !vain.is_of_a_stranger();
        let same = |known: &&mut Vain| (known.key, known.word) == (vain.key, vain.word);
        if let Some(known) = noted.all.iter_mut().find(same) {
            *known = vain;
        } else if noted.all.len() < DENIED_MAX {
            noted.all.push(vain);
        } else {
            noted.more = noted.more.saturating_add(1);
        }
    }

    /// What was offered, and the reasons against it.
    pub fn all(&self) -> &[Vain] {
        self.0.as_ref().map_or(&[], |noted| &noted.all)
    }

    /// Whether none of it is known to be of somebody here.
    pub fn is_of_a_stranger(&self) -> bool {
        self.0.as_ref().is_none_or(|noted| !noted.of_somebody)
    }

    /// The user name that was asked for.
    pub fn login(&self) -> &str {
        self.0.as_ref().map_or("", |noted| &noted.login)
    }

    /// How many offers more there were.
    pub fn more(&self) -> u32 {
        self.0.as_ref().map_or(0, |noted| noted.more)
    }
}

impl fmt::Display for Denied {
    /// `SHA256:... no_vm_here, SHA256:... certificate_expired (unverified), 3 more`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Vain { key, why, word }) in self.all().iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            match key {
                Some(key) => write!(f, "{key} {why}")?,
                None => write!(f, "{why}")?,
            }
            if *word == Word::Claim {
                f.write_str(" (unverified)")?;
            }
        }
        match self.more() {
            0 => Ok(()),
            more => write!(f, ", {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(key: u8, why: Refusal) -> Vain {
        Vain { key: Some(Fingerprint([key; 32])), why, word: Word::Fact }
    }

    #[test]
    fn what_is_noted_of_keys_offered_in_vain_is_bounded_and_printable() {
        let mut denied = Denied::default();
        assert_eq!((denied.to_string().as_str(), denied.login()), ("", ""));
        let mut note = |key: u8, why| denied.note("al\nice", fact(key, why));
        (0..10).for_each(|key| note(key, Refusal::NoVmHere));
        note(0, Refusal::Revoked);
        denied.note("", Vain { key: None, ..fact(0, Refusal::Unreadable) });
        assert_eq!((denied.all().len(), denied.more()), (DENIED_MAX, 5));
        assert_eq!(denied.all()[0], fact(0, Refusal::Revoked));
        assert_eq!(denied.login(), "al\nice", "as sent: whoever writes it makes it printable");
        let text = denied.to_string();
        assert!(text.starts_with(&format!("{} revoked, ", Fingerprint([0; 32]))), "{text}");
        assert!(text.ends_with(" no_vm_here, 5 more"), "{text}");
    }

    #[test]
    fn a_stranger_is_who_has_offered_no_key_of_anybody_here_also_behind_those_that_are_remembered()
    {
        let mut denied = Denied::default();
        for key in 0..10 {
            denied.note("x", fact(key, Refusal::NotRegistered));
            assert!(denied.is_of_a_stranger());
        }
        denied.note("x", fact(11, Refusal::From));
        assert!(!denied.is_of_a_stranger());
        for &why in Refusal::ALL {
            let mut denied = Denied::default();
            denied.note("x", fact(1, why));
            assert_eq!(denied.is_of_a_stranger(), why.is_of_a_stranger(), "{why}");
        }
    }

    /// Anybody can write a certificate in the name of a CA that is trusted: its public
    /// key is no secret.
    #[test]
    fn what_an_unverified_certificate_says_is_nobodys_word_and_never_a_fact() {
        for &why in Refusal::ALL {
            let mut denied = Denied::default();
            denied.note("x", Vain { word: Word::Claim, ..fact(1, why) });
            assert!(denied.is_of_a_stranger(), "{why}");
            assert!(denied.to_string().ends_with(&format!(" {why} (unverified)")), "{denied}");
            // Their own plain key says who they are, whichever comes first.
            denied.note("x", fact(1, Refusal::NoVmHere));
            denied.note("x", Vain { word: Word::Claim, ..fact(1, why) });
            assert!(!denied.is_of_a_stranger(), "{why}");
            assert_eq!(denied.all().len(), 2);
        }
    }
}
