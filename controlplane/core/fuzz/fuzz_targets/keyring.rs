//! Any bytes are opened or refused, and what is sealed is opened.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::networkdb::{Key, Keyring};

fuzz_target!(|bytes: &[u8]| {
    let Ok(key) = Key::new(b"0123456789abcdef") else { return };
    let rings = [Keyring::default(), Keyring::new(key, Vec::new())];
    for ring in &rings {
        for opened in [ring.open_datagram(bytes), ring.open_stream(bytes)].into_iter().flatten() {
            assert!(opened.len() <= bytes.len());
        }
    }
    let sealed = rings[1].seal_datagram([7; 12], bytes.to_vec());
    assert_eq!(rings[1].open_datagram(&sealed).as_deref(), Ok(bytes));
    let sealed = rings[1].seal_stream([7; 12], bytes.to_vec());
    assert_eq!(rings[1].open_stream(&sealed).as_deref(), Ok(bytes));
});
