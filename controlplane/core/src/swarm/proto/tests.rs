use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

fn decode<M: Message + Default>(text: &str) -> M {
    M::decode(hex(text).as_slice()).unwrap()
}

/// `spec/swarm-agent.md` 8.6.
#[test]
fn a_session_request_is_as_the_managers_read_it() {
    let request = SessionRequest {
        description: Some(NodeDescription {
            hostname: "gw1".to_owned(),
            platform: Some(Platform {
                architecture: "none".to_owned(),
                os: "none".to_owned(),
            }),
            resources: None,
            engine: Some(EngineDescription {
                engine_version: "0".to_owned(),
                plugins: vec![PluginDescription {
                    kind: "Network".to_owned(),
                    name: "overlay".to_owned(),
                }],
            }),
            tls_info: Some(NodeTlsInfo {
                cert_issuer_subject: hex("30133111300f06035504031308737761726d2d6361"),
                ..NodeTlsInfo::default()
            }),
        }),
        session_id: String::new(),
    };
    let vector = "0a45 0a03677731 120c0a046e6f6e6512046e6f6e65 2217 0a0130 1a12 0a074e6574776f726b 12076f7665726c6179 \
                  2a17 1215 30133111300f06035504031308 737761726d2d6361";
    assert_eq!(request.encode_to_vec(), hex(vector));
}

/// Resources of zero are told as an empty message, not left out: then nothing that reserves some is placed here.
#[test]
fn no_resources_are_told() {
    let description = NodeDescription {
        resources: Some(Resources::default()),
        ..NodeDescription::default()
    };
    assert_eq!(description.encode_to_vec(), [0x1a, 0x00]);
}

/// `spec/swarm-agent.md` 8.6.
#[test]
fn a_key_is_read() {
    let key: EncryptionKey =
        decode("0a11 6e6574776f726b696e673a676f73736970 1a10 62db62b82ccff2540b359f823613721e 209eb301");
    assert_eq!((key.subsystem.as_str(), key.algorithm), ("networking:gossip", 0));
    assert_eq!((key.key.len(), key.lamport_time), (16, 22_942));
    assert_eq!(format!("{key:?}"), "EncryptionKey(networking:gossip at 22942)");
}

/// `spec/swarm-agent.md` 8.7.
#[test]
fn a_heartbeat_s_period_is_read() {
    let answer: HeartbeatResponse = decode("0a08 0804 1087b5b6dc03");
    assert_eq!(
        answer.period,
        Some(Period {
            seconds: 4,
            nanos: 999_135_879
        })
    );
    let request = HeartbeatRequest {
        session_id: "x".repeat(25),
    };
    assert_eq!(request.encode_to_vec()[..2], [0x0a, 0x19]);
}

fn update(state: i32, message: &str, err: &str, timestamp: Option<Period>) -> Vec<u8> {
    let request = UpdateTaskStatusRequest {
        session_id: "S".to_owned(),
        updates: vec![TaskStatusUpdate {
            task_id: "T".to_owned(),
            status: Some(TaskStatus {
                timestamp,
                state,
                message: message.to_owned(),
                err: err.to_owned(),
            }),
        }],
    };
    request.encode_to_vec()
}

/// `spec/swarm-agent.md` 8.8: the updates are field 3.
#[test]
fn a_task_s_state_is_told() {
    let at = Period {
        seconds: 1_795_325_927,
        nanos: 0,
    };
    let accepted = update(state::ACCEPTED, "accepted", "", Some(at));
    assert_eq!(
        accepted,
        hex("0a0153 1a1a 0a0154 1215 0a0608e7ff89d806 108002 1a086163636570746564")
    );
    let rejected = update(state::REJECTED, "", "no runtime", None);
    assert!(
        rejected.ends_with(&hex("108006 22 0a 6e6f2072756e74696d65")),
        "{rejected:02x?}"
    );
}

/// `spec/swarm-agent.md` 8.10.
#[test]
fn an_attachment_is_asked_for() {
    let request = AttachNetworkRequest {
        config: Some(NetworkAttachmentConfig {
            target: "att1".to_owned(),
            addresses: vec!["10.50.0.99".to_owned()],
        }),
        container_id: "gw".to_owned(),
    };
    assert_eq!(
        request.encode_to_vec(),
        hex("0a12 0a0461747431 1a0a31302e35302e302e3939 1202 6777")
    );
}

/// Fields that are not declared, of all four wire types, are skipped: also the secrets of an assignment.
#[test]
fn what_is_not_known_is_skipped() {
    let task: Task = decode("0a0174 f80105 f101 0102030405060708 fa01 03616263 fd01 01020304 5000");
    assert_eq!((task.id.as_str(), task.desired_state), ("t", 0));
    let secret: Assignment = decode("12 03 0a0173");
    assert_eq!(secret, Assignment::default());
}

proptest! {
    /// Whatever arrives is a message or an error.
    #[test]
    fn decoders_are_total(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SessionMessage::decode(bytes.as_slice());
        let _ = AssignmentsMessage::decode(bytes.as_slice());
        let _ = NodeCertificateStatusResponse::decode(bytes.as_slice());
        let _ = HeartbeatResponse::decode(bytes.as_slice());
        let _ = AttachNetworkResponse::decode(bytes.as_slice());
        let _ = GetRootCaCertificateResponse::decode(bytes.as_slice());
    }

    /// A message cut anywhere is a shorter message or an error.
    #[test]
    fn a_cut_message_is_no_panic(cut in 0_usize..90) {
        let whole = hex("0a0153 1a1a 0a0154 1215 0a0608e7ff89d806 108002 1a086163636570746564");
        let _ = SessionMessage::decode(&whole[..cut.min(whole.len())]);
        let _ = UpdateTaskStatusRequest::decode(&whole[..cut.min(whole.len())]);
    }
}
