//! Raw bytes at both ends of the transport, before any key.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::transport_bytes(data));
