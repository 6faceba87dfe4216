//! Tests of frames that an agent did not send so: cut off, longer, forged, out of their place.

use super::*;

/// An edge that has asked, and what seals what the agent says.
fn asked() -> (Asked, Sealer, Seeded) {
    let world = World::quick(11);
    let (Edge::Asked(edge), Agent::Waiting(line)) = (world.edge, world.agent) else {
        panic!("nothing has happened yet");
    };
    (edge.1, line.1, world.random)
}

fn sealed(sealer: &mut Sealer, payload: &[u8], random: &mut Seeded) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(payload, random, &mut out).unwrap();
    out
}

fn refused(why: &[u8]) -> Vec<u8> {
    let mut message = vec![number::REFUSED];
    message.put_string(why);
    message
}

#[test]
fn an_answer_that_is_cut_off_or_longer_or_another_message_is_none() {
    let (mut asked, mut sealer, mut random) = asked();
    let mut answer = |said: &[u8]| {
        let mut frame = sealed(&mut sealer, said, &mut random);
        asked.answer(&mut frame).map(|found| found.map(|(answered, _)| answered))
    };
    let no = refused(b"no \x1b[2J way");
    assert_eq!(answer(&[number::READY]), Ok(Some(Answered::Ready)));
    assert_eq!(answer(&no), Ok(Some(Answered::Refused("no \\x1b[2J way".to_owned()))));
    for len in 1..no.len() {
        assert!(answer(&no[..len]).is_err(), "{len}");
    }
    assert!(answer(&[&no[..], &[0]].concat()).is_err());
    assert!(answer(&[number::READY, 0]).is_err());
    for other in (0..=u8::MAX).filter(|it| ![number::READY, number::REFUSED].contains(it)) {
        assert!(answer(&[other]).is_err(), "{other}");
    }
}

#[test]
fn a_frame_that_is_cut_off_is_waited_for_and_a_changed_one_is_nobodys() {
    let (mut whole, mut sealer, mut random) = asked();
    let frame = sealed(&mut sealer, &refused(b"because"), &mut random);
    for len in 0..frame.len() {
        assert_eq!(whole.answer(&mut frame[..len].to_vec()), Ok(None), "{len}");
    }
    for at in 0..frame.len() {
        let (mut asked, ..) = asked();
        let mut changed = frame.clone();
        changed[at] ^= 1;
        // A length that became longer is waited for.
        assert!(!matches!(asked.answer(&mut changed), Ok(Some(_))), "{at}");
    }
    assert!(matches!(whole.answer(&mut frame.clone()), Ok(Some((Answered::Refused(_), _)))));
    // Once more, it is in another's place.
    assert!(whole.answer(&mut frame.clone()).is_err());
}

/// Nothing is signed, and nothing said to the client, for what is no question.
#[test]
fn a_question_that_is_cut_off_or_longer_or_another_message_gets_no_signature() {
    let mut world = World::quick(12);
    while matches!(world.edge, Edge::Asked(_)) {
        world.step().unwrap();
    }
    let (Edge::HandedOff(mut end), Agent::Taken(mut agent)) = (world.edge, world.agent) else {
        panic!("it has judged");
    };
    let mut random = world.random;
    let mut ask = |said: &[u8]| {
        let mut cx = Context { now: Instant(0), entropy: &mut random };
        // As the agent would, in the framing that the edge still listens to.
        agent.seal_for_tests(said, &mut cx);
        let mut frame = agent.output().to_vec();
        agent.sent(frame.len());
        let mut to_client = Vec::new();
        let passed = end.from_agent(&mut frame, &mut to_client, &mut cx);
        (passed, to_client)
    };
    let hash = world.client.session_id().unwrap().to_vec();
    let mut sign = vec![number::SIGN];
    for field in [&b"ssh-ed25519"[..], &hash, &[9; 32]] {
        sign.put_string(field);
    }
    for len in 1..sign.len() {
        let (passed, to_client) = ask(&sign[..len]);
        assert!(passed.is_err() && to_client.is_empty(), "{len}: {passed:?}");
    }
    let (passed, to_client) = ask(&[&sign[..], &[0]].concat());
    assert!(passed.is_err() && to_client.is_empty(), "{passed:?}");
    for other in (0..=u8::MAX).filter(|it| ![number::SIGN, message::DISCONNECT].contains(it)) {
        let (passed, to_client) = ask(&[other, 0, 0, 0, 0]);
        assert!(passed.is_err() && to_client.is_empty(), "{other}: {passed:?}");
    }
    let (passed, to_client) = ask(&sign);
    assert!(matches!(passed, Ok(Passed::Last(_))) && !to_client.is_empty(), "{passed:?}");
}

#[test]
fn a_claim_that_is_cut_off_or_longer_is_none() {
    let encoded = Claim::generate(&mut Seeded(13)).encoded();
    assert!(Claim::parse(&encoded).is_ok());
    for len in 0..encoded.len() {
        assert!(Claim::parse(&encoded[..len]).is_err(), "{len}");
    }
    assert!(Claim::parse(&[&encoded[..], &[0]].concat()).is_err());
}
