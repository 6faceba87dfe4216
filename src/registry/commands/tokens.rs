//! Tokens of the API.

use super::{Done, taken};
use crate::registry::document::{Document, Key, Role, Token};
use crate::registry::draft::Draft;
use crate::registry::name::Label;
use crate::registry::refusal::{Kind, Refusal};

impl Draft<'_> {
    pub(super) fn token_add(
        &mut self,
        name: &Label,
        hash: &str,
        role: Role,
        expires_s: Option<u64>,
    ) -> Done {
        if self.model().tokens().contains_key(name) {
            return taken(name, "another token");
        }
        let (hash, created_s) = (hash.to_owned(), self.stamp().now_s);
        let token = Token { hash, role, created_s, expires_s };
        self.put(&Key::Token(name.clone()), Some(Document::Token(token)));
        Ok(())
    }

    pub(super) fn token_remove(&mut self, name: &Label) -> Done {
        if !self.model().tokens().contains_key(name) {
            return Err(Refusal::unknown(Kind::Token, name));
        }
        self.put(&Key::Token(name.clone()), None);
        Ok(())
    }
}
