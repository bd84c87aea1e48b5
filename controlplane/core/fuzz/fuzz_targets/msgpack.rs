//! Any bytes are msgpack or not, and a reader never goes past their end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::wire::message::Message;
use weft_core::wire::msgpack::Reader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    while reader.skip().is_ok() {}
    assert!(reader.position() <= bytes.len());
    let mut reader = Reader::new(bytes);
    let _ = reader.map(|key, value| match key.len() % 5 {
        0 => value.number().map(drop),
        1 => value.text().map(drop),
        2 => value.raw().map(drop),
        3 => value.flag().map(drop),
        _ => value.skip(),
    });
    let _ = Message::decode(bytes);
});
