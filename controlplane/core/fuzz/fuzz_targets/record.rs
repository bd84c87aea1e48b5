//! Any bytes are the value of a row or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::record::{EndpointRecord, PeerRecord};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = PeerRecord::decode(bytes) {
        assert_eq!(PeerRecord::decode(&record.encode()).as_ref(), Ok(&record));
    }
    if let Ok(record) = EndpointRecord::decode(bytes) {
        assert_eq!(EndpointRecord::decode(&record.encode()).as_ref(), Ok(&record));
    }
});
