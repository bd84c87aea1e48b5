//! Any datagram is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::wire::message::Message;
use weft_core::wire::packet::{pack, unpack};

fuzz_target!(|bytes: &[u8]| {
    let unpacked = unpack(bytes);
    // What was read is written and read again as the same.
    for message in unpacked.messages {
        let again = unpack(&pack(&[message.encode()], true));
        if !matches!(message, Message::User(_)) {
            assert_eq!(again.messages, [message]);
        }
    }
});
