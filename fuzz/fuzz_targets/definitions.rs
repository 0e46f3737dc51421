#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dsql_view_fuzz::definitions::check(data);
});
