//! `keyway explain`: why a key is let in somewhere, or is not. The server walks the code
//! that the edge walks.

use std::net::IpAddr;

use clap::Args;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::each;
use super::client::Request;
use super::error::Outcome;
use super::remote::Remote;
use super::table::{self, Column, cell, plain, write_fields};
use super::terminal::Terminal;
use super::vm::put;
use super::{DONE, Output, keyfile};
use crate::registry::Label;
use crate::ssh::publickey::Fingerprint;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Explain {
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    place: Dialled,
    /// The user name asked for: LOGIN, or LOGIN+VM
    #[arg(long, value_name = "LOGIN")]
    login: Option<String>,
    /// Where the client comes from; matters to from= and source-address
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Who {
    /// A file with the public key, `-` for stdin
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// The key by its fingerprint
    #[arg(long, value_name = "SHA256:...", value_parser = keyfile::parse_fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// A file with a user certificate (id-cert.pub), `-` for stdin
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Dialled {
    /// What is dialled: an IP, or a pool address's name
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    address: Option<String>,
    /// What is dialled: a VM's name, alone or with the zone
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
}

fn parse_address(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<Label>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("write an IP address, or the name of a pool address".to_owned())
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.split('.').all(|label| label.parse::<Label>().is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("write the name of a VM, alone or with the zone behind it".to_owned())
    }
}

const FIELDS: &[Column] = &[
    ("DECISION", |it| cell(it, "decision")),
    ("REASON", |it| match cell(it, "code") {
        code if code.is_empty() => cell(it, "reason"),
        code => format!("{} [{code}]", cell(it, "reason")),
    }),
    ("PRINCIPAL", |it| cell(it, "principal")),
    ("VM", |it| cell(it, "vm")),
    ("ADDRESS", |it| cell(it, "address")),
    ("LOGIN", |it| cell(it, "login")),
    ("BY NAME", |it| cell(it, "by_name")),
    ("CARRIED", |it| cell(it, "carried")),
];

pub(super) fn run(explain: Explain, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let Explain { who, place, login, from } = explain;
    let (Who { key, fingerprint, cert }, Dialled { address, name }) = (who, place);
    let cert = cert.map(|file| keyfile::certificate(&file, terminal)).transpose()?;
    let key = key.map(|file| keyfile::one_key(&file, terminal)).transpose()?;
    let mut body = json!({});
    let given = [
        ("key", key.map(|key| key.line)),
        ("fingerprint", fingerprint.map(|fingerprint| fingerprint.to_string())),
        ("cert", cert),
        ("address", address),
        ("name", name),
        ("login", login),
        ("from", from.map(|from| from.to_string())),
    ];
    put(&mut body, given.map(|(name, value)| (name, value.map(Value::from))));
    let talk = remote.talk(terminal)?;
    let method = hyper::Method::POST;
    let request = Request { method, path: path(["explain"]), body: Some(body), if_match: None };
    let answer = talk.client.ask_json(&request)?;
    let out = &mut *talk.terminal.stdout;
    match talk.output {
        Output::Json => writeln!(out, "{}", table::json(&answer))?,
        Output::Table => {
            write_fields(&answer, FIELDS, out)?;
            for step in each(&answer, "steps") {
                let [step, found] = ["step", "answer"].map(|part| plain(&cell(step, part)));
                writeln!(out, "  {step}: {found}")?;
            }
        }
    }
    Ok(DONE)
}
