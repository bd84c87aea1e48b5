//! Any bytes are NetworkDB's messages or not: those of Docker, and those that weft's nodes compare digests with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use weft_core::wire::gossip::{
    BucketsMessage, BulkSyncMessage, CompoundMessage, DigestMessage, GossipMessage, NetworkEvent, NetworkPushPull,
    NodeEvent, RowsMessage, SummaryMessage, TableEvent, WantedMessage, read, read_lists,
};

fn again<T: Message + Default + PartialEq>(message: T) {
    assert!(read::<T>(&message.encode_to_vec()).is_ok_and(|again| again == message));
}

fn check<T: Message + Default + PartialEq>(bytes: &[u8]) {
    let _ = read(bytes).map(again::<T>);
}

fn check_lists<T: Message + Default + PartialEq>(bytes: &[u8]) {
    let _ = read_lists(bytes).map(again::<T>);
}

fuzz_target!(|bytes: &[u8]| {
    check::<GossipMessage>(bytes);
    check::<NodeEvent>(bytes);
    check::<NetworkEvent>(bytes);
    check::<TableEvent>(bytes);
    check::<NetworkPushPull>(bytes);
    check::<BulkSyncMessage>(bytes);
    check::<CompoundMessage>(bytes);
    check_lists::<DigestMessage>(bytes);
    check_lists::<BucketsMessage>(bytes);
    check_lists::<SummaryMessage>(bytes);
    check_lists::<WantedMessage>(bytes);
    check::<RowsMessage>(bytes);
});
