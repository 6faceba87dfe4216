//! Tests of `memory`: the reference keeps the rules it is the reference for.

use std::sync::Arc;

use super::Memory;
use crate::registry::store::testing::conformance::{self, Factory};
use crate::registry::store::{Store, StoreId};

struct Memories;

impl Factory for Memories {
    fn fresh(&self, store_id: StoreId) -> Arc<dyn Store> {
        Arc::new(Memory::new(store_id))
    }

    fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }
}

#[test]
fn the_reference_keeps_every_rule_of_a_store() {
    conformance::hold(&Memories);
}
