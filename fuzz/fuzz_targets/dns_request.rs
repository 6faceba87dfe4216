//! DNS requests, over UDP and TCP.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::dns_request(data));
