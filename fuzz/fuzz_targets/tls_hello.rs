//! The first message of a TLS client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router::bad_input::tls_hello(bytes));
