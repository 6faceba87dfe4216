//! Frames, wherever their bytes are parted.

use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8], form: Form) -> Result<Vec<(Origin, Vec<u8>)>, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut output = Output::new(io::Cursor::new(bytes.to_vec()), form);
        let mut all: Vec<(Origin, Vec<u8>)> = vec![];
        while let Some(Chunk { origin, bytes }) = output.next().await? {
            match all.last_mut() {
                Some((last, so_far)) if *last == origin => so_far.extend(&bytes),
                _ => all.push((origin, bytes.to_vec())),
            }
        }
        Ok(all)
    })
}

#[test]
fn a_frame_of_another_kind_ends_it() {
    assert_eq!(
        read(&[1, 0, 0, 0, 0, 0, 0, 1, b'x', 0], Form::Framed).unwrap_err().label(),
        "closed"
    );
    assert_eq!(read(&[4, 0, 0, 0, 0, 0, 0, 0], Form::Framed).unwrap_err().label(), "not_docker");
    assert_eq!(read(&[1, 1, 0, 0, 0, 0, 0, 0], Form::Framed).unwrap_err().label(), "not_docker");
    assert_eq!(read(&[3, 0, 0, 0, 0, 0, 0, 1, b'x'], Form::Framed).unwrap_err().label(), "failed");
    assert_eq!(read(&[4, 0], Form::Raw).unwrap(), [(Origin::Stdout, vec![4, 0])]);
}

proptest! {
    #[test]
    fn frames_say_what_was_written(
        parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
    ) {
        let (mut bytes, mut expected): (Vec<u8>, Vec<(Origin, Vec<u8>)>) = (vec![], vec![]);
        for (error, part) in &parts {
            bytes.extend([if *error { 2 } else { 1 }, 0, 0, 0]);
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
            let origin = if *error { Origin::Stderr } else { Origin::Stdout };
            match expected.last_mut() {
                Some((last, so_far)) if *last == origin => so_far.extend(part),
                _ if part.is_empty() => {}
                _ => expected.push((origin, part.clone())),
            }
        }
        prop_assert_eq!(read(&bytes, Form::Framed).unwrap(), expected);
    }
}
