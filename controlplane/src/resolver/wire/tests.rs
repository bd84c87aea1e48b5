use super::*;
use hickory_proto::op::Query as Asked;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn ask(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn query(message: &Message, transport: Transport) -> Query {
    match receive(&message.to_vec().unwrap(), transport) {
        Received::Query(query) => *query,
        other => panic!("{other:?}"),
    }
}

fn refused(bytes: &[u8]) -> Message {
    match receive(bytes, Transport::Udp) {
        Received::Refused(answer) => Message::from_vec(&answer).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn decided(addresses: &[Ipv4Addr]) -> Decision {
    Decision::Addresses(addresses.iter().map(|address| (*address).into()).collect())
}

#[test]
fn each_type_asks_its_question() {
    let cases = [
        ("Web.Net1.", RecordType::A, Question::A("Web.Net1".into())),
        ("web.", RecordType::AAAA, Question::Aaaa("web".into())),
        ("web.", RecordType::MX, Question::Mx("web".into())),
        (
            "4.1.0.10.in-addr.arpa.",
            RecordType::PTR,
            Question::Ptr(Ipv4Addr::new(10, 0, 1, 4).into()),
        ),
        (
            "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.F.IP6.ARPA.",
            RecordType::PTR,
            Question::Ptr("fd00:1::3".parse().unwrap()),
        ),
        (
            "0.0.d.f.ip6.arpa.",
            RecordType::PTR,
            Question::Other("0.0.d.f.ip6.arpa".into()),
        ),
        (
            "1.0.10.IN-ADDR.ARPA.",
            RecordType::PTR,
            Question::Other("1.0.10.IN-ADDR.ARPA".into()),
        ),
        (
            "256.1.0.10.in-addr.arpa.",
            RecordType::PTR,
            Question::Other("256.1.0.10.in-addr.arpa".into()),
        ),
        ("web.", RecordType::PTR, Question::Other("web".into())),
        ("web.", RecordType::SRV, Question::Other("web".into())),
        (".", RecordType::A, Question::A(String::new())),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(query(&ask(name, kind), Transport::Udp).question, expected);
    }
}

#[test]
fn an_answer_carries_id_question_flags_and_ttl() {
    let query = query(&ask("WEB.", RecordType::A), Transport::Udp);
    let addresses = vec![Ipv4Addr::new(10, 0, 1, 5), Ipv4Addr::new(10, 0, 1, 4)];
    for (addresses, ttl) in [(addresses[..1].to_vec(), TTL_ONE), (addresses, TTL_MANY)] {
        let answer = Message::from_vec(&query.answer(&decided(&addresses))).unwrap();
        assert_eq!(
            (answer.id, answer.message_type, answer.response_code),
            (0x1234, MessageType::Response, ResponseCode::NoError)
        );
        assert!(answer.recursion_available && answer.recursion_desired && !answer.truncation && answer.edns.is_none());
        assert_eq!(answer.queries[0].name().to_ascii(), "WEB.");
        let expected: Vec<(u32, RData)> = addresses.iter().map(|address| (ttl, RData::A(A(*address)))).collect();
        let got: Vec<(u32, RData)> = answer
            .answers
            .iter()
            .map(|record| (record.ttl, record.data.clone()))
            .collect();
        assert_eq!(got, expected);
    }
    let nothing = Message::from_vec(&query.answer(&Decision::NoData)).unwrap();
    assert_eq!(
        (nothing.response_code, nothing.answers.len()),
        (ResponseCode::NoError, 0)
    );
}

#[test]
fn ipv6_addresses_are_answered_as_such() {
    let query = query(&ask("web.", RecordType::AAAA), Transport::Udp);
    let address: std::net::Ipv6Addr = "fd00:1::3".parse().unwrap();
    let answer = Message::from_vec(&query.answer(&Decision::Addresses(vec![address.into()]))).unwrap();
    let found: Vec<&RData> = answer.answers.iter().map(|record| &record.data).collect();
    assert_eq!(found, [&RData::AAAA(address.into())]);
}

#[test]
fn a_name_that_cannot_be_written_is_no_data() {
    let query = query(&ask("4.1.0.10.in-addr.arpa.", RecordType::PTR), Transport::Udp);
    let answer = |name: &str| {
        Message::from_vec(&query.answer(&Decision::Name(name.into())))
            .unwrap()
            .answers
    };
    assert_eq!(answer("c1.net1")[0].data.to_string(), "c1.net1.");
    assert_eq!(answer("a..b"), []);
    assert_eq!(answer(&"x".repeat(64)), []);
    assert_eq!(answer(""), []);
}

#[test]
fn what_does_not_fit_is_cut_and_marked() {
    let many: Vec<Ipv4Addr> = (0..5000u32).map(Ipv4Addr::from).collect();
    let mut large = ask("tasks.web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    large.set_edns(edns);
    let plain = ask("tasks.web.", RecordType::A);
    let cases = [
        (&plain, Transport::Udp, 512),
        (&large, Transport::Udp, 1232),
        (&plain, Transport::Tcp, 65535),
    ];
    for (message, transport, limit) in cases {
        let query = query(message, transport);
        let bytes = query.answer(&decided(&many));
        assert!(
            bytes.len() <= limit && bytes.len() > limit - 16,
            "{} of {limit}",
            bytes.len()
        );
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.truncation);
        assert_eq!(answer.edns.is_some(), message.edns.is_some());
        let fits = Message::from_vec(&query.answer(&decided(&many[..answer.answers.len()]))).unwrap();
        assert!(!fits.truncation);
        assert_eq!(fits.answers.len(), answer.answers.len());
    }
}

#[test]
fn what_is_no_single_question_is_refused() {
    let good = ask("web.", RecordType::A).to_vec().unwrap();
    let code = |bytes: &[u8]| {
        let answer = refused(bytes);
        assert_eq!(answer.id, 0x1234);
        answer.response_code
    };
    let mut two = ask("web.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two.to_vec().unwrap()), ResponseCode::FormErr);
    let mut none = good.clone();
    none[5] = 0;
    assert_eq!(code(&none), ResponseCode::FormErr);
    assert_eq!(code(&good[..12]), ResponseCode::FormErr);
    assert_eq!(code(&good[..good.len() - 1]), ResponseCode::FormErr);
    let mut pointer = good.clone();
    pointer.splice(12..17, [0xc0, 12]);
    assert_eq!(code(&pointer), ResponseCode::FormErr);
    let mut status = good.clone();
    status[2] |= 0x10;
    assert_eq!(code(&status), ResponseCode::NotImp);
    let mut chaos = ask("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos.to_vec().unwrap()), ResponseCode::NotImp);
    let mut future = ask("web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    // BADVERS and BADSIG are one number (RFC 6895 section 2.3).
    assert_eq!(
        u16::from(code(&future.to_vec().unwrap())),
        u16::from(ResponseCode::BADVERS)
    );
    let mut response = good.clone();
    response[2] |= 0x80;
    assert!(matches!(receive(&response, Transport::Udp), Received::Nothing));
    assert!(matches!(receive(&good[..11], Transport::Udp), Received::Nothing));
}

#[test]
fn only_an_answer_to_the_question_is_passed_on() {
    let query = query(&ask("web.example.", RecordType::A), Transport::Udp);
    let answer = |name: &str, id: u16, code: ResponseCode| {
        let mut answer = ask(name, RecordType::A);
        answer.metadata = Metadata::new(id, MessageType::Response, OpCode::Query);
        answer.metadata.response_code = code;
        answer
    };
    let good = answer("WEB.example.", 7, ResponseCode::NXDomain).to_vec().unwrap();
    assert!(query.is_answered_by(&good, 7));
    assert!(!query.is_answered_by(&good, 8));
    assert!(!query.is_answered_by(&good[..20], 7));
    assert!(!query.is_answered_by(&answer("web.exbmple.", 7, ResponseCode::NoError).to_vec().unwrap(), 7));
    assert!(!query.is_answered_by(&query.bytes, 0x1234));
    let mut other_type = answer("web.example.", 7, ResponseCode::NoError);
    other_type.queries[0].set_query_type(RecordType::AAAA);
    assert!(!query.is_answered_by(&other_type.to_vec().unwrap(), 7));
    let mut silent = answer("web.example.", 7, ResponseCode::FormErr);
    silent.queries.clear();
    assert!(query.is_answered_by(&silent.to_vec().unwrap(), 7));
    silent.metadata.response_code = ResponseCode::NoError;
    assert!(!query.is_answered_by(&silent.to_vec().unwrap(), 7));
    let mut long = answer("web.example.", 7, ResponseCode::NoError);
    long.answers = addresses_of(long.queries[0].name(), &[Ipv4Addr::LOCALHOST.into(); 100]);
    let passed = query.pass_on(long.to_vec().unwrap());
    let passed = Message::from_vec(&passed).unwrap();
    assert_eq!(
        (passed.id, passed.truncation, passed.queries.len(), passed.answers.len()),
        (0x1234, true, 1, 0)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), flip in any::<u8>(), at in 0usize..64) {
        let mut near = ask("tasks.web.", RecordType::A).to_vec().unwrap();
        let length = near.len();
        near[at % length] ^= flip;
        for bytes in [bytes, near] {
            if let Received::Query(query) = receive(&bytes, Transport::Udp) {
                let answer = query.answer(&decided(&[Ipv4Addr::LOCALHOST; 40]));
                prop_assert!(answer.len() <= query.limit);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
                prop_assert!(!query.is_answered_by(&bytes, 0));
            }
        }
    }
}
