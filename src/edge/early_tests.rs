//! Tests of `early`: a client that does not wait for its VM.

use std::sync::Arc;

use super::*;
use crate::ssh::handoff::sign;
use crate::ssh::message::{self, REQUEST_FAILURE, REQUEST_SUCCESS};
use crate::ssh::testing::{Pair, client_config, server_config};
use crate::ssh::transport::{Algorithms, DATA_MAX_BYTES, RekeyLimits};
use crate::ssh::wire::Put;

/// A client, ourselves in between, and a VM.
struct Between {
    client: Pair,
    vm: Pair,
    early: Early,
}

fn request(name: &str, wants_reply: bool, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(name.as_bytes());
    message.put_bool(wants_reply);
    message.put_bytes(rest);
    message
}

impl Between {
    fn new() -> Self {
        Self { client: Pair::connected(1), vm: Pair::connected(2), early: Early::default() }
    }

    /// Somebody else holds the host keys.
    fn handed() -> Self {
        let limits = RekeyLimits::default();
        let edge = server_config(3, Algorithms::default(), limits);
        let server = Arc::new(edge.without_keys());
        let mut client = Pair::new(4, server, client_config(Algorithms::default(), limits));
        client.settle().unwrap();
        let (algorithm, host_key, hash) = client.server.transport.unsigned().unwrap();
        let signature = sign(&edge, (algorithm, host_key), hash.as_bytes()).unwrap();
        client.at_server(|server, cx| server.signed(&signature, cx)).unwrap();
        client.settle().unwrap();
        client.authenticate();
        Self { client, ..Self::new() }
    }

    /// The client says `message`; what it hears in answer.
    fn says(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        self.client.at_client(|client, cx| client.send(message, cx)).unwrap();
        self.client.settle().unwrap();
        for payload in std::mem::take(&mut self.client.server.payloads) {
            let early = &mut self.early;
            self.client.at_server(|server, cx| early.take(&payload, server, cx)).unwrap();
        }
        self.hears()
    }

    fn hears(&mut self) -> Vec<Vec<u8>> {
        self.client.settle().unwrap();
        std::mem::take(&mut self.client.client.payloads)
    }
}

#[test]
fn a_sign_of_life_is_answered_while_everything_else_waits_for_the_vm_in_order() {
    let mut all = Between::new();
    let mut open = vec![CHANNEL_OPEN];
    open.put_string(b"session");
    let announces = |size| {
        let mut open = open.clone();
        for number in [0, 1 << 20, size] {
            open.put_u32(number);
        }
        open
    };
    let (open, passed) = (announces(u32::MAX), announces(DATA_MAX_BYTES));
    let unanswered = request("no-more-sessions@openssh.com", false, b"");
    assert_eq!(all.says(&open), [[0_u8; 0]; 0]);
    for name in ["keepalive@openssh.com", "keepalive@libssh2.org"] {
        assert_eq!(all.says(&request(name, true, b"")), [[REQUEST_FAILURE]]);
    }
    assert_eq!(all.says(&unanswered), [[0_u8; 0]; 0]);
    let first = all.client.client.transport.send_seq().wrapping_sub(4);
    let sends = all.vm.client.transport.send_seq();
    let early = std::mem::take(&mut all.early);
    let said = all.vm.at_client(|vm, cx| early.pass_on(vm, cx, |_| {})).unwrap();
    assert_eq!(said.origins, [(sends, first), (sends + 1, first + 3)]);
    assert!(said.replies.owes_none() && said.proof == Proof::Open);
    all.vm.settle().unwrap();
    assert_eq!(all.vm.server.payloads, [passed, unanswered]);
}

#[test]
fn behind_a_request_that_the_vm_answers_a_sign_of_life_waits_for_it_too_and_the_client_hears_something()
 {
    let mut all = Between::new();
    let forward = request("tcpip-forward", true, b"");
    let alive = request("keepalive@openssh.com", true, b"");
    all.says(&forward);
    let before = all.client.client.transport.receive_seq();
    for count in 1..=40 {
        assert_eq!(all.says(&alive), [[0_u8; 0]; 0], "a reply out of its turn");
        let heard = all.client.client.transport.receive_seq().wrapping_sub(before);
        assert_eq!(heard, count, "an IGNORE each");
    }
    let early = std::mem::take(&mut all.early);
    let mut said = all.vm.at_client(|vm, cx| early.pass_on(vm, cx, |_| {})).unwrap();
    all.vm.settle().unwrap();
    assert_eq!(all.vm.server.payloads.len(), 41);
    // An answer of ours goes behind all 41 of the VM.
    assert_eq!(said.replies.answer(vec![1]).unwrap(), None);
    for _ in 0..40 {
        assert!(said.replies.passed().is_empty());
    }
    assert_eq!(said.replies.passed(), [vec![1]]);
}

#[test]
fn a_proof_of_our_host_keys_is_given_once() {
    let mut all = Between::new();
    let mut blob = Vec::new();
    let host_key = all.client.client.transport.host_key().to_vec();
    blob.put_string(&host_key);
    let prove = request("hostkeys-prove-00@openssh.com", true, &blob);
    assert_eq!(all.says(&prove)[0][0], REQUEST_SUCCESS);
    assert_eq!(all.says(&prove), [[REQUEST_FAILURE]]);
    assert_eq!(all.early.proof, Proof::Given);
}

#[test]
fn a_proof_that_somebody_else_makes_waits_for_the_session_and_what_follows_waits_behind_it() {
    let mut all = Between::handed();
    let (prove, none) = (request("hostkeys-prove-00@openssh.com", true, b"asked"), [[0_u8; 0]; 0]);
    let alive = request("keepalive@openssh.com", true, b"");
    assert_eq!(all.says(&prove), none);
    assert_eq!(all.says(&alive), none, "a reply out of its turn");
    let mut early = std::mem::take(&mut all.early);
    assert_eq!(early.proof.due().as_deref(), Some(&b"asked"[..]));
    assert_eq!(early.proof.due(), None);
    let mut said = all.vm.at_client(|vm, cx| early.pass_on(vm, cx, |_| {})).unwrap();
    assert!(said.replies.reply(vec![REQUEST_FAILURE]).unwrap().is_empty());
    assert_eq!(said.replies.answer_came(vec![7]), [[7], [REQUEST_FAILURE]]);

    // There is no session.
    let mut all = Between::handed();
    all.says(&request("tcpip-forward", true, b""));
    all.says(&prove);
    all.says(&alive);
    let early = std::mem::take(&mut all.early);
    let mut number = 1;
    let done = all.client.at_server(|server, cx| {
        early.tell(server, cx, |_, transport, cx| {
            number += 1;
            transport.send(&[REQUEST_SUCCESS, number], cx)
        })
    });
    done.unwrap();
    assert_eq!(
        all.hears(),
        [vec![REQUEST_SUCCESS, 2], vec![REQUEST_FAILURE], vec![REQUEST_SUCCESS, 3]]
    );
}

#[test]
fn who_is_told_that_there_is_no_vm_gets_replies_in_the_order_of_the_requests() {
    let mut all = Between::new();
    all.says(&request("tcpip-forward", true, b""));
    // A second proof is refused, behind the reply to the forward.
    all.early.proof = Proof::Given;
    assert_eq!(all.says(&request("hostkeys-prove-00@openssh.com", true, b"")), [[0_u8; 0]; 0]);
    let (early, mut told) = (std::mem::take(&mut all.early), Vec::new());
    let done = all.client.at_server(|server, cx| {
        early.tell(server, cx, |message, transport, cx| {
            told.push(message[0]);
            transport.send(&[REQUEST_SUCCESS], cx)
        })
    });
    done.unwrap();
    assert_eq!(told, [GLOBAL_REQUEST]);
    assert_eq!(all.hears(), [[REQUEST_SUCCESS], [REQUEST_FAILURE]]);
}

#[test]
fn what_waits_is_bounded() {
    let mut all = Between::new();
    let (mut count, data) = (0, [message::CHANNEL_DATA; 1024]);
    while !all.early.is_full() {
        all.says(&data);
        count += 1;
    }
    assert!(count <= WAITING_MAX / data.len());
    let mut all = Between::new();
    let mut count = 0;
    while !all.early.is_full() {
        all.says(&[message::CHANNEL_DATA]);
        count += 1;
    }
    assert!(count <= WAITING_MAX / MESSAGE_BYTES, "{count} empty messages");
}
