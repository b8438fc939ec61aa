//! The target `image` of `tamis::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tamis_fuzz::check("image", bytes));
