//! Tests of `saved`.

use proptest::prelude::*;

use super::*;
use crate::route::Change;
use crate::route::testing::*;

const HEAD: Head = Head { store: [7; 16], program: [8; 8], revision: 1 << 40 };

fn bytes_of(contents: &Contents) -> Vec<u8> {
    encode(HEAD, contents).flatten().collect()
}

fn delta() -> Delta {
    let all = contents();
    let puts =
        all.vms.into_iter().map(Change::PutVm).chain(all.users.into_iter().map(Change::PutUser));
    Delta { changes: puts.chain([Change::RemoveTeam("ops".to_owned())]).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_saved_comes_back_in_whatever_pieces_it_is_read(
        contents in arbitrary(),
        cuts in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let bytes = bytes_of(&contents);
        prop_assert_eq!(decode(&bytes), Ok((HEAD, contents.clone())));
        let (mut decoder, mut rest) = (Decoder::default(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            decoder.take(piece).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(decoder.finish(), Ok((HEAD, contents)));
    }

    #[test]
    fn whatever_is_read_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(decode_delta(&bytes).is_err());
        let whole = bytes_of(&contents());
        let spliced: Vec<u8> = whole[..60].iter().copied().chain(bytes).collect();
        prop_assert!(decode(&spliced).is_err());
    }
}

#[test]
fn more_entries_than_one_chunk_holds_come_back_in_order() {
    let mut contents = contents();
    contents.vms = (0..=2 * CHUNK_ENTRIES).map(|n| vm(&format!("v{n}"), "alice", "s001")).collect();
    assert!(encode(HEAD, &contents).count() > 6);
    assert!(decode(&bytes_of(&contents)) == Ok((HEAD, contents)));
}

#[test]
fn a_file_cut_anywhere_is_torn() {
    let bytes = bytes_of(&contents());
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes[..end]), Err(SavedRoutesError::Torn), "{end}");
    }
    let one_more = [&bytes[..], &[0]].concat();
    assert_eq!(decode(&one_more), Err(SavedRoutesError::Trailing));
    let twice = [&bytes[..], &bytes[..]].concat();
    assert_eq!(decode(&twice), Err(SavedRoutesError::Trailing));
}

#[test]
fn a_bit_flipped_anywhere_is_found() {
    let bytes = bytes_of(&contents());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let fault = decode(&altered).unwrap_err();
            let expected: &[SavedRoutesError] = if at < MAGIC.len() {
                &[SavedRoutesError::Foreign]
            } else {
                // A length that grew asks for bytes that are not there.
                &[SavedRoutesError::Altered, SavedRoutesError::Torn]
            };
            assert!(expected.contains(&fault), "byte {at} bit {bit}: {fault}");
        }
    }
}

#[test]
fn chunks_of_two_files_do_not_mix() {
    let mut other = contents();
    other.vms[0].vm.endpoint = "elsewhere:22".to_owned();
    let (one, two): (Vec<_>, Vec<_>) =
        (encode(HEAD, &contents()).collect(), encode(HEAD, &other).collect());
    let mixed: Vec<u8> =
        one[..one.len() - 2].iter().chain(&two[two.len() - 2..]).flatten().copied().collect();
    assert_eq!(
        decode(&mixed).map(|(_, contents)| contents),
        Ok(other.clone()),
        "the VMs are the only difference"
    );
    let mixed: Vec<u8> =
        one[..one.len() - 1].iter().chain(&two[two.len() - 1..]).flatten().copied().collect();
    assert_eq!(decode(&mixed), Err(SavedRoutesError::Altered));
}

#[test]
fn a_delta_comes_back_and_is_no_snapshot() {
    let bytes = encode_delta(HEAD, 9, &delta());
    assert_eq!(decode_delta(&bytes), Ok((HEAD, 9, delta())));
    assert_eq!(decode(&bytes), Err(SavedRoutesError::Kind { found: "delta", wanted: "snapshot" }));
    let whole = bytes_of(&contents());
    assert_eq!(
        decode_delta(&whole),
        Err(SavedRoutesError::Kind { found: "snapshot", wanted: "delta" })
    );
    for end in 0..bytes.len() {
        assert_eq!(decode_delta(&bytes[..end]), Err(SavedRoutesError::Torn), "{end}");
    }
}

#[test]
fn another_version_is_told_by_its_number() {
    let head = |version: u16| {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&[1; HEAD_LEN - 14]);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    };
    let found = VERSION + 1;
    assert_eq!(decode(&head(found)), Err(SavedRoutesError::Version { found }));
    assert_eq!(decode(&head(VERSION_BEFORE)), Err(SavedRoutesError::Torn));
}

#[test]
fn every_message_comes_back_as_what_it_was_and_a_cut_one_not_at_all() {
    let told = FrontDoor {
        host_keys: vec![vec![1; 51]],
        edges: vec![[2; 32]],
        trusted_user_cas: Vec::new(),
        revocations: vec![3; 70],
        stands_for: vec![[4; 16]],
    };
    let all = [
        (bytes_of(&contents()), Message::Snapshot(HEAD, contents())),
        (encode_delta(HEAD, 7, &delta()), Message::Delta(HEAD, 7, delta())),
        (encode_front_door(HEAD, &told), Message::FrontDoor(HEAD, told)),
    ];
    for (bytes, message) in all {
        assert_eq!(decode_any(&bytes).as_ref(), Ok(&message));
        for end in 0..bytes.len() {
            assert!(decode_any(&bytes[..end]).is_err(), "{end}");
            let mut altered = bytes.clone();
            altered[end] ^= 1;
            assert!(decode_any(&altered).is_err(), "{end}");
        }
    }
}
