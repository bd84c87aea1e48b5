//! Compression, against a second decoder that is written after the words of `spec/networkdb.md` 3.3.5 alone.

use super::super::compress::{self, lzw};
use super::super::packet::{self, unpack};
use super::super::stream::{self, StreamMessage};
use super::hex;
use crate::wire::message::Message;
use proptest::prelude::*;

const CLEAR: usize = 256;
const END: usize = 257;

/// Least significant bit first; codes of 9 to 12 bits; the width grows when the next code reaches the power of two. Go's decoder does
/// the same. A full table learns nothing more until a clear code, and nothing may follow the end.
fn reference_decode(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut bits = packed
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| usize::from(byte >> bit & 1)));
    let mut read =
        |width: usize| -> Option<usize> { (0..width).try_fold(0, |code, bit| Some(code | bits.next()? << bit)) };
    let mut out: Vec<u8> = Vec::new();
    let mut table: Vec<Vec<u8>> = Vec::new();
    let (mut width, mut last): (usize, Option<Vec<u8>>) = (9, None);
    loop {
        let code = read(width).ok_or("no end code")?;
        match code {
            CLEAR => {
                (width, last) = (9, None);
                table.clear();
                continue;
            }
            END => break,
            _ => {}
        }
        let next = END + 1 + table.len();
        let text = match code {
            0..CLEAR => vec![code as u8],
            code if code < next => table[code - END - 1].clone(),
            code if code == next => {
                let last = last.as_ref().ok_or("a code of nothing")?;
                [&last[..], &last[..1]].concat()
            }
            _ => return Err(format!("code {code} beyond {next}")),
        };
        out.extend_from_slice(&text);
        if let Some(last) = last.filter(|_| next < 4096) {
            table.push([&last[..], &text[..1]].concat());
        }
        // One more code than the table holds can be named: the one that comes into being with it.
        let learnt = END + 1 + table.len() + 1;
        if learnt > 1 << width && width < 12 {
            width += 1;
        }
        last = Some(text);
    }
    let rest: Vec<_> = std::iter::from_fn(|| read(1)).collect();
    if rest.len() >= 8 || rest.contains(&1) {
        return Err(format!("{} bits after the end", rest.len()));
    }
    Ok(out)
}

fn agree(plain: &[u8]) {
    let packed = lzw(plain).expect("packed");
    assert_eq!(reference_decode(&packed).as_deref(), Ok(plain), "{} bytes", plain.len());
    assert_eq!(
        compress::unpack(&packed, plain.len()).as_deref(),
        Ok(plain),
        "{} bytes",
        plain.len()
    );
}

/// Bytes of some kind, `length` of them.
fn bytes(kind: &str, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length)
        .map(|place| match kind {
            "random" => random(),
            "letters" => b'a' + random() % 4,
            "zeros" => 0,
            "period" => (place % 7) as u8,
            // Random and repetitive in turn: the table is full of what is of no more use.
            _ if place / 5000 % 2 == 0 => random(),
            _ => (place % 100) as u8,
        })
        .collect()
}

#[test]
fn the_vectors_are_written_and_read_byte_by_byte() {
    for (plain, packed) in [
        (&b"hello hello hello"[..], "00d19461c3e60d0881040d222c1810"),
        (&[b'a'; 64], "00c3081c48b0a0c18308132a4c1810"),
    ] {
        assert_eq!(lzw(plain), Some(hex(packed)));
        assert_eq!(reference_decode(&hex(packed)).as_deref(), Ok(plain));
        assert_eq!(compress::unpack(&hex(packed), 64).as_deref(), Ok(plain));
    }
}

#[test]
fn what_is_packed_is_what_a_literal_decoder_reads() {
    for kind in ["random", "letters", "zeros", "period", "turns"] {
        for length in (0..2000).step_by(7) {
            agree(&bytes(kind, length));
        }
        // Around the growth to 10, 11 and 12 bits and the first full table, byte by byte.
        for length in (250..262).chain(760..775).chain(1784..1800).chain(3830..3850) {
            agree(&bytes(kind, length));
        }
        agree(&bytes(kind, 1 << 20));
    }
}

#[test]
fn a_full_table_is_cleared_and_a_leading_clear_is_not_required() {
    let packed = lzw(&bytes("random", 20_000)).expect("packed");
    let clears = {
        let mut bits = packed
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| usize::from(byte >> bit & 1)));
        let (mut width, mut codes, mut clears) = (9, 0, 0);
        loop {
            let code = (0..width).fold(0, |code, bit| code | bits.next().expect("a bit") << bit);
            match code {
                END => break clears,
                CLEAR => {
                    clears += 1;
                    (width, codes) = (9, 0);
                    continue;
                }
                _ => codes += 1,
            }
            assert!(END + codes <= 4096, "no code is learnt past the table");
            width = match END + codes {
                0..512 => 9,
                512..1024 => 10,
                1024..2048 => 11,
                _ => 12,
            };
        }
    };
    assert!(clears >= 5, "{clears}");
    // `a`, end: 0x061 and 0x101 in 9 bits each.
    let without_clear = [0x61, 0x02, 0x02];
    assert_eq!(reference_decode(&without_clear), Ok(b"a".to_vec()));
    assert_eq!(compress::unpack(&without_clear, 1), Ok(b"a".to_vec()));
}

#[test]
fn messages_are_compressed_where_it_makes_them_shorter() {
    for kind in ["random", "letters", "zeros"] {
        for length in [0, 40, 255, 256, 300, 1300] {
            let plain = bytes(kind, length);
            match compress::pack(&plain) {
                Some(packed) => {
                    assert!(packed.len() < plain.len() && length >= 256, "{kind} {length}");
                    assert!(packed.starts_with(&hex("09 82 a4 416c676f 00 a3 427566")));
                }
                None => assert!(length < 256 || kind == "random", "{kind} {length}"),
            }
        }
    }
    assert_eq!(compress::pack(&vec![0; (1 << 20) + 1]), None);
    // On both ways in: as a datagram, compressed below its checksum, and on a stream.
    let message = Message::User(bytes("letters", 900));
    for checksum in [false, true] {
        let packed = packet::pack(&[message.encode(), message.encode()], checksum);
        assert!(packed.len() < 900, "{}", packed.len());
        assert_eq!(packed[if checksum { 5 } else { 0 }], 9);
        assert_eq!(unpack(&packed).messages, [message.clone(), message.clone()]);
    }
    let plain = stream::encode_user(&bytes("letters", 9000));
    let packed = stream::pack(plain.clone());
    assert!(packed.len() < plain.len());
    assert_eq!(stream::completeness(&packed), stream::Completeness::Whole(packed.len()));
    assert_eq!(stream::decode(&packed), Ok(StreamMessage::User(bytes("letters", 9000))));
}

proptest! {
    #[test]
    fn any_bytes_come_back(plain in prop::collection::vec(any::<u8>(), 0..6000), few in 1_u8..=255) {
        agree(&plain);
        agree(&plain.iter().map(|byte| byte % few).collect::<Vec<_>>());
    }

    #[test]
    fn both_decoders_agree_about_damaged_bytes(plain in prop::collection::vec(0_u8..9, 1..3000), place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut packed = lzw(&plain).expect("packed");
        let place = place.index(packed.len());
        packed[place] ^= 1_u8 << bit;
        // What the literal one reads this one reads the same; this one may forgive what follows the end.
        if let Ok(read) = reference_decode(&packed) {
            prop_assert_eq!(compress::unpack(&packed, 1 << 20), Ok(read));
        }
    }
}
