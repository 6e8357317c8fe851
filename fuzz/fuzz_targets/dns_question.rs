//! A question to the name server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns::bad_input::question(bytes));
