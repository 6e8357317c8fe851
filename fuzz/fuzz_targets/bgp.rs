//! What a BGP neighbour says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bgp::bad_input::conversation(bytes));
