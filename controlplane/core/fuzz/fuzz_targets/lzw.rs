//! Any packed bytes unpack to no more than is allowed, or are refused; and what is packed unpacks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::wire::compress::{pack, read_buffer, unpack};
use weft_core::wire::msgpack::Reader;

const LIMIT: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plain) = unpack(bytes, LIMIT) {
        assert!(plain.len() <= LIMIT);
    }
    if let Some(packed) = pack(bytes) {
        let buffer = read_buffer(&mut Reader::new(&packed[1..])).expect("what was packed has a buffer");
        assert_eq!(unpack(buffer, bytes.len()).as_deref(), Ok(bytes));
    }
});
