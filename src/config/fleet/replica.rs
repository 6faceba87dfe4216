//! A fleet file that is a map of its own: an agent's replica.

use super::super::document::Document;
use super::super::source::Source;
use super::{EMPTY, EMPTY_FIX, Fleet, Walk};

/// Walks a fleet file that is a map of its own, beside no `keyway.toml`: it may say nothing of what
/// a registry decides.
pub(in crate::config) fn read_alone(source: &Source) -> (Document, Option<Fleet>) {
    let document = Document::new(&source.name, source.order, &source.text);
    let walk = Walk::new(&document, None).all(&source.text);
    if walk.fleet.is_empty() && document.faults_found() == 0 {
        document.fault(1, EMPTY, EMPTY_FIX);
    }
    for (vm, lines) in walk.fleet.vms.iter().zip(&walk.places.vms) {
        if vm.address.is_none() && !vm.no_address {
            let what = format!(
                "VM `{}` has no address here, so nobody reaches it at the one that the front door gave it",
                vm.name
            );
            document.warn(lines.header, what, "take the file that `keyway export` writes there");
        }
    }
    let fleet = walk.finish(source);
    (document, fleet)
}
