//! PROXY protocol headers, v1 and v2.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::proxy_header(data));
