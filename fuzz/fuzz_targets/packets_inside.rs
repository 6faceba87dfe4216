//! Structured packets before and inside encryption: the first bytes choose the script.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::packets_inside(data));
