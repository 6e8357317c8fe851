//! The header of a load balancer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router::bad_input::proxy_header(bytes));
