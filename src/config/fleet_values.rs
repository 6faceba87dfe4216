//! The values of a fleet file, each read into what cannot be wrong or told with its line.

use std::net::IpAddr;

use super::document::Value;
use crate::registry::{Label, Principal, is_login};
use crate::route::is_id;

pub(super) fn vm_id(value: &Value<'_, '_>) -> Option<String> {
    let id = value.string()?;
    if !is_id(id) {
        value.fault(
            format_args!("is \"{id}\", which is no id of a VM"),
            "write 1 to 63 letters, digits, - and _, or leave the key out",
        );
        return None;
    }
    Some(id.to_owned())
}

pub(super) fn label(value: &Value<'_, '_>) -> Option<Label> {
    let text = value.string()?;
    Label::new(text).map_err(|_| no_name(value, text)).ok()
}

pub(super) fn principal(value: &Value<'_, '_>) -> Option<Principal> {
    let text = value.string()?;
    text.parse().map_err(|_| no_name(value, text)).ok()
}

fn no_name(value: &Value<'_, '_>, text: &str) {
    value.fault(
        format_args!("is \"{text}\", which is no name"),
        "write 1 to 63 of a-z, 0-9 and -, with no - at either end",
    );
}

pub(super) fn login(value: &Value<'_, '_>) -> Option<String> {
    let login = value.string()?;
    if !is_login(login) {
        value.fault(
            format_args!("is \"{login}\", which is no login name"),
            "write the name of an account in the VM, or leave the key out",
        );
    }
    Some(login.to_owned())
}

pub(super) fn parse_ip(value: &Value<'_, '_>) -> Option<IpAddr> {
    let text = value.string()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        value.fault(
            format_args!("is \"{text}\", which is no IP address"),
            "write one address, without a port or prefix",
        );
    }
    parsed
}
