//! USERAUTH_REQUEST payloads after a finished key exchange.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::userauth(data));
