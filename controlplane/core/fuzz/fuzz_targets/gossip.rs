//! Any bytes are NetworkDB's messages or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use weft_core::wire::gossip::{
    BulkSyncMessage, CompoundMessage, GossipMessage, NetworkEvent, NetworkPushPull, NodeEvent, TableEvent,
};

fn read<T: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = T::decode(bytes) {
        assert!(T::decode(&*message.encode_to_vec()).is_ok_and(|again| again == message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    read::<GossipMessage>(bytes);
    read::<NodeEvent>(bytes);
    read::<NetworkEvent>(bytes);
    read::<TableEvent>(bytes);
    read::<NetworkPushPull>(bytes);
    read::<BulkSyncMessage>(bytes);
    read::<CompoundMessage>(bytes);
});
