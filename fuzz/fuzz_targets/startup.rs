//! The first packets of a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router::bad_input::startup(bytes));
