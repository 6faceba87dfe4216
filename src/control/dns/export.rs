//! The zone as a file, for people with their own name servers (RFC 1035 §5, RFC 3597).

use std::io::{self, Write};
use std::ops::ControlFlow;

use super::zone::Zone;

/// Writes one record a line, in any order behind the SOA, with absolute names. Nothing is held but
/// the line at hand.
///
/// # Errors
/// Those of `out`.
pub fn write(zone: &Zone, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "; {} as of serial {}", zone.apex(), zone.serial())?;
    // hickory's `Display` of a record is a line of a zone file.
    writeln!(out, "{}", zone.soa())?;
    let mut result = Ok(());
    zone.walk(&mut |record| {
        result = writeln!(out, "{record}");
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result
}
