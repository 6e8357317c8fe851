//! The answer of another name server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns::bad_input::reply(bytes));
