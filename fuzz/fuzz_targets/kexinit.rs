//! KEXINIT payloads: parse and negotiate in both roles.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::kexinit(data));
