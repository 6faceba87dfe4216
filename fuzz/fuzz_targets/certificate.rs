//! OpenSSH certificates: parse, and check against a fixed CA.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::certificate(data));
