//! Any bytes are a recording that runs, or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::recording::{Reader, Replay};

fuzz_target!(|bytes: &[u8]| {
    run(bytes);
    // The same as frames that have a right checksum: two bytes of length, then the content.
    let mut framed = b"weft-rec\0\0\0\x01".to_vec();
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (body, behind) = behind.split_at(length);
        framed.extend_from_slice(&(length as u32).to_be_bytes());
        framed.extend_from_slice(&crc32fast::hash(body).to_be_bytes());
        framed.extend_from_slice(body);
        rest = behind;
    }
    run(&framed);
});

fn run(bytes: &[u8]) {
    let mut reader = Reader::new();
    let mut replay = Replay::new();
    for piece in bytes.chunks(4096) {
        reader.push(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    if replay.feed(frame).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
