//! Tests of `wire`: the examples of RFC 4251 §5 and every way a field can be cut.

use super::{Malformed, Put, Reader};

#[test]
fn mpints_match_the_examples_of_rfc_4251() {
    let cases: [(&[u8], &[u8]); 3] = [
        (&[], &[0, 0, 0, 0]),
        (
            &[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
            &[0, 0, 0, 8, 0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
        ),
        (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
    ];
    for (magnitude, wire) in cases {
        let mut out = Vec::new();
        out.put_mpint(magnitude);
        assert_eq!(out, wire);
        assert_eq!(Reader::new(wire).mpint(), Ok(magnitude));
    }
}

#[test]
fn mpints_that_are_negative_or_padded_are_refused() {
    for wire in [
        &[0u8, 0, 0, 1, 0x80][..],
        &[0, 0, 0, 1, 0],
        &[0, 0, 0, 2, 0, 0x7f],
        &[0, 0, 0, 5, 0xff, 0x21, 0x52, 0x41, 0x11],
    ] {
        assert_eq!(Reader::new(wire).mpint(), Err(Malformed::Mpint), "{wire:?}");
    }
}

#[test]
fn an_mpint_with_leading_zeros_is_written_in_its_shortest_form() {
    let mut out = Vec::new();
    out.put_mpint(&[0, 0, 0, 0x7f]);
    assert_eq!(out, [0, 0, 0, 1, 0x7f]);
}

#[test]
fn a_message_cut_anywhere_is_short_and_never_a_panic() {
    let mut whole = Vec::new();
    whole.put_u8(7);
    whole.put_bool(true);
    whole.put_u32(99);
    whole.put_u64(1 << 40);
    whole.put_string(b"hello");
    whole.put_mpint(&[0xff; 32]);
    for cut in 0..=whole.len() {
        let mut reader = Reader::new(&whole[..cut]);
        let read = (|| {
            reader.u8()?;
            reader.bool()?;
            reader.u32()?;
            reader.u64()?;
            reader.text()?;
            reader.mpint()?;
            reader.end()
        })();
        let wanted = if cut == whole.len() { Ok(()) } else { Err(Malformed::Short) };
        assert_eq!(read, wanted);
    }
}

#[test]
fn a_length_field_of_four_gibibytes_is_short_not_an_allocation() {
    assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).string(), Err(Malformed::Short));
}

#[test]
fn names_hold_no_space_control_or_eight_bit_byte() {
    for bad in [&b"a b"[..], b"a\n", b"\x1b[0m", b"\xff"] {
        let mut wire = Vec::new();
        wire.put_string(bad);
        assert_eq!(Reader::new(&wire).name(), Err(Malformed::Text));
    }
}

#[test]
fn bytes_after_the_last_field_are_refused() {
    let mut reader = Reader::new(&[1, 2]);
    assert_eq!(reader.u8(), Ok(1));
    assert_eq!(reader.end(), Err(Malformed::Trailing));
}
