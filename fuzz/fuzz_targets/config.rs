//! keyway.toml and fleet.toml texts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyway::testing::fuzz::config(data));
