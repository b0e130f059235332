#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nextscale_fuzz::network(data));
