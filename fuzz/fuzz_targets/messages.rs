//! What client and server say, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router::bad_input::messages(bytes));
