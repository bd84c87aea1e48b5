//! Sealing and opening: the captured bytes of `spec/networkdb.md` 3.3.7, rotation, nonces.

use super::super::message::{Message, Ping, Source};
use super::super::packet::unpack;
use super::super::stream::{Completeness, StreamMessage, completeness, decode};
use super::super::tests::hex;
use super::*;
use std::collections::BTreeSet;

fn key(byte: u8) -> Key {
    Key::new(&[byte; 16]).expect("key")
}

fn captured_ring() -> Keyring {
    Keyring::new(Key::new(b"0123456789abcdef").expect("key"), Vec::new())
}

fn captured_datagram() -> Vec<u8> {
    hex("01 ba186b9ef90674eee389fe9d
         1bc2ca7a134600f0b4aa0aa76e6c93b38e816aba126243f8414d7f849216bd145e79fd01386e9646de792ecb7c9b678544e29f4a
         44c1aaad1396b6e647a0237f79efa8b96e2c715f654c695a9d1559a96714098a9b5b8b82677894eb04ca0b4acd")
}

fn captured_stream() -> Vec<u8> {
    hex(
        "0a000000a5 01 9e2b1a10b13d6915c45a071c 5863a0ea6f234ac536ab8a607f0c6efe4f1acc05159d6e6f9ff960f0df863a917b744ef48a6478c0fb771ffbc0c879d3
         00a42baf8b8abe49abd56a915a91cecead6d978d94aef6a1b1afaf1c0123ba38dfedaf329e650444f0b44ebaf6d3e38daf520fe7b8bc5583bb4a3f363992d7087114
         f30d0efc84ae85d025cc26529c05875b736f49baff82a4439b12491b3974fdf612658356ab3b",
    )
}

fn captured_ping() -> Message {
    Message::Ping(Ping {
        sequence: 1,
        node: "nodebbbbbbbb".into(),
        source: Some(Source {
            address: "10.0.0.1:7946".parse().expect("address"),
            node: "nodeaaaaaaaa".into(),
        }),
    })
}

#[test]
fn the_captured_datagram_is_opened_and_sealed_byte_by_byte() {
    let ring = captured_ring();
    let plain = ring.open_datagram(&captured_datagram()).expect("opened");
    assert_eq!(unpack(&plain).messages, [captured_ping()]);
    let nonce = hex("ba186b9ef90674eee389fe9d").try_into().expect("12 bytes");
    assert_eq!(ring.seal_datagram(nonce, captured_ping().encode()), captured_datagram());
}

#[test]
fn the_captured_stream_is_measured_opened_read_and_sealed() {
    let (ring, bytes) = (captured_ring(), captured_stream());
    assert_eq!(completeness(&bytes), Completeness::Whole(bytes.len()));
    for length in 0..bytes.len() {
        assert_eq!(completeness(&bytes[..length]), Completeness::More, "{length}");
    }
    // More than one message never follows, but what does is not part of this one.
    let longer = [bytes.clone(), vec![7]].concat();
    assert_eq!(completeness(&longer), Completeness::Whole(bytes.len()));
    let plain = ring.open_stream(&bytes).expect("opened");
    assert!(plain.starts_with(&hex("09 82 a4 416c676f")), "{plain:?}");
    match decode(&plain).expect("read") {
        StreamMessage::PushPull(view) => assert_eq!(view.nodes.len(), 1),
        other => panic!("{other:?}"),
    }
    let nonce = hex("9e2b1a10b13d6915c45a071c").try_into().expect("12 bytes");
    assert_eq!(ring.seal_stream(nonce, plain), bytes);
}

#[test]
fn the_head_of_a_stream_is_authenticated_and_its_shape_does_not_matter() {
    let ring = captured_ring();
    let sealed = ring.seal_stream([1; 12], b"message".to_vec());
    assert_eq!(ring.open_stream(&sealed), Ok(b"message".to_vec()));
    for place in 1..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 0x10;
        assert!(
            matches!(ring.open_stream(&changed), Err(OpenError::WrongKey { .. })),
            "{place}"
        );
        assert!(matches!(
            ring.open_stream(&sealed[..place]),
            Err(OpenError::WrongKey { .. })
        ));
    }
    // A datagram is no stream: the same bytes without the head were sealed with it.
    assert!(ring.open_datagram(&sealed[5..]).is_err());
}

#[test]
fn keys_have_sixteen_twenty_four_or_thirty_two_bytes() {
    for length in 0..64 {
        let bytes: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        match Key::new(&bytes) {
            Ok(key) => {
                assert!([16, 24, 32].contains(&length), "{length}");
                let ring = Keyring::new(key, Vec::new());
                let sealed = ring.seal_datagram([length as u8; 12], b"hello".to_vec());
                assert_eq!(sealed.len(), 5 + OVERHEAD_BYTES);
                assert_eq!(ring.open_datagram(&sealed), Ok(b"hello".to_vec()));
            }
            Err(error) => {
                assert!(![16, 24, 32].contains(&length), "{length}");
                let told = format!("a gossip key has {length} bytes; it must have 16, 24 or 32");
                assert_eq!(error.to_string(), told);
            }
        }
    }
}

/// NIST's GCM test vectors (SP 800-38D's companion, cases 3, 9 and 15): the three key sizes, 64 bytes, no associated data.
#[test]
fn the_cipher_is_the_standards() {
    let whole = "feffe9928665731c6d6a8f9467308308";
    let cases = [
        (
            whole.to_owned(),
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985",
            "4d5c2af327cd64a62cf35abd2ba6fab4",
        ),
        (
            format!("{whole}feffe9928665731c"),
            "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710acade256",
            "9924a7c8587336bfb118024db8674a14",
        ),
        (
            format!("{whole}{whole}"),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
            "b094dac5d93471bdec1a502270e3cc6c",
        ),
    ];
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
    );
    let nonce = hex("cafebabefacedbaddecaf888");
    for (bytes, cipher, tag) in cases {
        let ring = Keyring::new(Key::new(&hex(&bytes)).expect("key"), Vec::new());
        let sealed = ring.seal_datagram(nonce.clone().try_into().expect("12 bytes"), plain.clone());
        let expected = [vec![1], nonce.clone(), hex(cipher), hex(tag)].concat();
        assert_eq!(sealed, expected, "{bytes}");
    }
}

#[test]
fn padded_messages_of_protocol_1_are_accepted() {
    let ring = captured_ring();
    for length in 0..40 {
        let plain: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let missing = 16 - length % 16;
        let padded = [plain.clone(), vec![missing as u8; missing]].concat();
        let mut sealed = ring.seal_datagram([3; 12], padded);
        // Neither the version nor the padding is authenticated by itself, so turning one into the other is possible.
        sealed[0] = 0;
        assert_eq!(ring.open_datagram(&sealed), Ok(plain), "{length}");
    }
    for wrong in [&[][..], &[0], &[17; 17], &[2, 1, 2], &[3, 3], &[200]] {
        let mut sealed = ring.seal_datagram([3; 12], wrong.to_vec());
        sealed[0] = 0;
        assert!(ring.open_datagram(&sealed).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_rotation_loses_no_message_whoever_is_how_far() {
    let (old, new) = (key(1), key(2));
    let mut stages = vec![Keyring::new(old.clone(), Vec::new())];
    let mut step = |change: &dyn Fn(&mut Keyring)| {
        let mut ring = stages.last().cloned().expect("a stage");
        change(&mut ring);
        stages.push(ring);
    };
    step(&|ring| ring.add(new.clone()));
    step(&|ring| ring.use_key(&new).expect("used"));
    step(&|ring| ring.remove(&old).expect("removed"));
    assert_eq!(
        stages.iter().map(|ring| ring.keys().len()).collect::<Vec<_>>(),
        [1, 2, 2, 1]
    );
    // Neighbouring stages understand each other; that is why each step is done everywhere before the next.
    for (sender, sealing) in stages.iter().enumerate() {
        for (receiver, opening) in stages.iter().enumerate() {
            let sealed = sealing.seal_datagram([9; 12], b"message".to_vec());
            let opened = opening.open_datagram(&sealed);
            let near = sender.abs_diff(receiver) <= 1;
            assert!(opened.is_ok() || !near, "{sender} to {receiver}: {opened:?}");
        }
    }
    assert!(
        stages[0]
            .open_datagram(&stages[3].seal_datagram([9; 12], vec![1]))
            .is_err()
    );
}

#[test]
fn the_primary_key_exists_and_stays() {
    let mut ring = Keyring::default();
    assert!(ring.is_empty());
    ring.add(key(1));
    ring.add(key(2));
    ring.add(key(1));
    assert_eq!(ring.keys(), [key(1), key(2)]);
    let unknown = ring.use_key(&key(3)).expect_err("unknown");
    assert_eq!(unknown, KeyringError::Unknown(key(3).fingerprint()));
    assert_eq!(ring.remove(&key(1)), Err(KeyringError::Primary(key(1).fingerprint())));
    ring.use_key(&key(2)).expect("used");
    assert_eq!(ring.keys(), [key(2), key(1)]);
    assert_eq!(ring.remove(&key(3)), Ok(()));
    assert_eq!(ring.remove(&key(1)), Ok(()));
    assert_eq!(ring.keys(), [key(2)]);
}

#[test]
fn keys_are_never_printed() {
    let secret = Key::new(b"0123456789abcdef").expect("key");
    let (text, debug) = (
        secret.fingerprint(),
        format!("{:?}", Keyring::new(secret.clone(), vec![key(7)])),
    );
    assert_eq!(text.len(), 8);
    assert_eq!(
        debug,
        format!("Keyring {{ keys: [Key({text}), Key({})] }}", key(7).fingerprint())
    );
    assert_ne!(key(7).fingerprint(), key(8).fingerprint());
    assert_ne!(key(7).fingerprint(), Key::new(&[7; 32]).expect("key").fingerprint());
}

#[test]
fn what_is_refused_says_why() {
    let (clear, ours, theirs) = (Keyring::default(), captured_ring(), Keyring::new(key(5), vec![key(6)]));
    let ping = captured_ping().encode();
    let sealed = ours.seal_datagram([4; 12], ping.clone());
    assert_eq!(clear.open_datagram(&ping), Ok(ping.clone()));
    assert_eq!(clear.open_datagram(&sealed), Err(OpenError::NoKeys));
    assert_eq!(ours.open_datagram(&ping), Err(OpenError::Plaintext));
    for plain in ["0281a55365714e6f01", "0c 36769aaf 08", "07 01 0000", "09 80"] {
        assert_eq!(ours.open_datagram(&hex(plain)), Err(OpenError::Plaintext), "{plain}");
    }
    let wrong = OpenError::WrongKey {
        keys: 2,
        primary: key(5).fingerprint(),
    };
    assert_eq!(theirs.open_datagram(&sealed), Err(wrong.clone()));
    // A version of the future, and nothing at all.
    assert_eq!(theirs.open_datagram(&[77; 60]), Err(wrong.clone()));
    assert_eq!(theirs.open_datagram(&[]), Err(OpenError::Plaintext));
    let stream = ours.seal_stream([4; 12], ping.clone());
    assert_eq!(clear.open_stream(&ping), Ok(ping.clone()));
    assert_eq!(clear.open_stream(&stream), Err(OpenError::NoKeys));
    assert_eq!(ours.open_stream(&ping), Err(OpenError::Plaintext));
    assert_eq!(theirs.open_stream(&stream), Err(wrong));
}

#[test]
fn nonces_do_not_repeat_not_even_when_the_counter_does() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let mut nonces = Nonces::new(seed);
        for turn in 0..50 {
            // Straight to the last two of each counter.
            nonces.counter = u32::MAX - 1;
            for _ in 0..2 {
                assert!(seen.insert(nonces.draw()), "seed {seed}, turn {turn}");
            }
            assert_eq!(nonces.counter, 0);
            assert!(seen.insert(nonces.draw()), "seed {seed}, turn {turn}");
        }
    }
    let draw = |seed| Nonces::new(seed).draw();
    assert_eq!(draw(7), draw(7), "the same seed, the same course");
}
