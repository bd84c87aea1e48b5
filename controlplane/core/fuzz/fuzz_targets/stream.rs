//! Any bytes on a stream are a message, the start of one, or none; and a whole one is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::wire::stream::{Completeness, StreamMessage, completeness, decode, encode_push_pull};

fuzz_target!(|bytes: &[u8]| {
    if let Completeness::Whole(length) = completeness(bytes) {
        assert!(length <= bytes.len());
        // What follows a message does not change where it ends.
        assert_eq!(completeness(&bytes[..length]), Completeness::Whole(length));
    }
    if let Ok(StreamMessage::PushPull(view)) = decode(bytes) {
        assert_eq!(decode(&encode_push_pull(&view)), Ok(StreamMessage::PushPull(view)));
    }
});
