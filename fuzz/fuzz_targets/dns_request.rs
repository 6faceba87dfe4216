//! DNS requests, over UDP and TCP.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::fuzz::dns_request(data));
