//! DNS messages (RFC 1035 section 4): a query in, an answer out. No sockets here.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;
use weft_core::dns::{Decision, Question};

/// Seconds that a single address or name may be kept: a virtual IP stays, a container's address changes when it is made anew.
/// Docker's 600 is too long for that.
pub const TTL_ONE: u32 = 30;

/// Seconds that a choice of several addresses may be kept: tasks come and go.
pub const TTL_MANY: u32 = 5;

/// The largest message: its length in front of it over TCP has two bytes.
pub(super) const MESSAGE_MAX: usize = 65535;

/// The largest answer over UDP to a client that does not tell what it can take (RFC 1035 section 4.2.1).
const DATAGRAM_MAX: usize = 512;

/// What we say that we can take over UDP; a query of a stub resolver is far below.
pub(super) const QUERY_MAX: u16 = 4096;

/// Length of the header, bytes.
const HEADER: usize = 12;

/// Over what a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What a datagram or a message of a stream turned out to be.
#[derive(Debug)]
pub(super) enum Received {
    /// No query at all: an answer to it might go around for ever.
    Nothing,
    /// A query that gets this answer whoever asks.
    Refused(Vec<u8>),
    /// A query.
    Query(Box<Query>),
}

/// A query with one question of class IN.
#[derive(Debug)]
pub(super) struct Query {
    message: Message,
    /// What is asked.
    pub(super) question: Question,
    /// The query as it came.
    pub(super) bytes: Vec<u8>,
    /// Where its question ends, bytes from the start.
    question_end: usize,
    /// The largest answer that the client takes, bytes.
    limit: usize,
}

/// Reads a message.
pub(super) fn receive(bytes: &[u8], transport: Transport) -> Received {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Received::Nothing;
    }
    if bytes[2] & 0x78 != 0 {
        return Received::Refused(bare(bytes, ResponseCode::NotImp));
    }
    let malformed = || Received::Refused(bare(bytes, ResponseCode::FormErr));
    let questions = u16::from_be_bytes([bytes[4], bytes[5]]);
    let (1, Some(question_end), Ok(message)) = (questions, question_end(bytes), Message::from_vec(bytes)) else {
        return malformed();
    };
    let [asked] = &message.queries[..] else {
        return malformed();
    };
    if message.version() != 0 {
        return Received::Refused(encode(&reply(&message, ResponseCode::BADVERS), bytes));
    }
    if asked.query_class() != DNSClass::IN {
        return Received::Refused(encode(&reply(&message, ResponseCode::NotImp), bytes));
    }
    let question = question(asked.name(), asked.query_type());
    let limit = match transport {
        Transport::Udp => usize::from(message.max_payload()).max(DATAGRAM_MAX),
        Transport::Tcp => MESSAGE_MAX,
    };
    Received::Query(Box::new(Query {
        question,
        bytes: bytes.to_vec(),
        question_end,
        limit,
        message,
    }))
}

impl Query {
    /// The answer to a decision; a decision to forward has none of its own and gets SERVFAIL.
    pub(super) fn answer(&self, decision: &Decision) -> Vec<u8> {
        let asked = self
            .message
            .queries
            .first()
            .map(|query| (query.name(), query.query_type()));
        let records = match (decision, asked) {
            (Decision::Forward, _) => return self.error(ResponseCode::ServFail),
            (Decision::Addresses(addresses), Some((name, RecordType::A | RecordType::AAAA))) => {
                addresses_of(name, addresses)
            }
            (Decision::Name(found), Some((name, RecordType::PTR))) => pointer(name, found),
            _ => Vec::new(),
        };
        self.fitted(reply(&self.message, ResponseCode::NoError), records)
    }

    /// An answer that is an error.
    pub(super) fn error(&self, code: ResponseCode) -> Vec<u8> {
        encode(&reply(&self.message, code), &self.bytes)
    }

    /// Encodes the reply with as many records as fit, and the TC bit if that is not all (RFC 2181 section 9).
    fn fitted(&self, mut reply: Message, mut records: Vec<Record>) -> Vec<u8> {
        let empty = encode(&reply, &self.bytes);
        reply.answers.extend(records.first().cloned());
        let one = encode(&reply, &self.bytes).len().saturating_sub(empty.len()).max(1);
        // All records are of one size: the same name, compressed, and the same type.
        let room = self.limit.saturating_sub(empty.len()) / one;
        reply.metadata.truncation = records.len() > room;
        records.truncate(room);
        reply.answers = records;
        encode(&reply, &self.bytes)
    }

    /// Whether `response`, which came for this query under `id`, is an answer to it (RFC 5452 section 9.1).
    pub(super) fn is_answered_by(&self, response: &[u8], id: u16) -> bool {
        if response.len() < HEADER || response[..2] != id.to_be_bytes() || response[2] & 0xf8 != 0x80 {
            return false;
        }
        // Some servers leave the question out of an error.
        if response[4..6] == [0, 0] {
            return response_code(response) != 0;
        }
        let asked = &self.bytes[HEADER..self.question_end];
        let Some(told) = response.get(HEADER..self.question_end) else {
            return false;
        };
        let name = asked.len() - 4;
        response[4..6] == [0, 1] && asked[..name].eq_ignore_ascii_case(&told[..name]) && asked[name..] == told[name..]
    }

    /// A response of an upstream server as the client gets it: its own id, and cut to the question if it takes no more over UDP.
    pub(super) fn pass_on(&self, mut response: Vec<u8>) -> Vec<u8> {
        response[..2].copy_from_slice(&self.bytes[..2]);
        if response.len() > self.limit {
            response.truncate(if response[4..6] == [0, 1] {
                self.question_end
            } else {
                HEADER
            });
            response[2] |= 0x02;
            response[6..HEADER].fill(0);
        }
        response
    }
}

/// The response code in a header.
pub(super) fn response_code(response: &[u8]) -> u8 {
    response.get(3).map_or(0, |flags| flags & 0x0f)
}

fn question(name: &Name, kind: RecordType) -> Question {
    let text = || {
        let mut text = name.to_ascii();
        if text.ends_with('.') {
            text.pop();
        }
        text
    };
    match kind {
        RecordType::A => Question::A(text()),
        RecordType::AAAA => Question::Aaaa(text()),
        RecordType::MX => Question::Mx(text()),
        RecordType::PTR => match name.parse_arpa_name() {
            Ok(net) if net.prefix_len() == net.max_prefix_len() => Question::Ptr(net.addr()),
            _ => Question::Other(text()),
        },
        _ => Question::Other(text()),
    }
}

/// All of one family, which was asked for.
fn addresses_of(name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
    let ttl = if addresses.len() > 1 { TTL_MANY } else { TTL_ONE };
    let data = |address: &IpAddr| match *address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    let record = |address| Record::from_rdata(name.clone(), ttl, data(address));
    addresses.iter().map(record).collect()
}

fn pointer(name: &Name, found: &str) -> Vec<Record> {
    let labels = found.split('.').map(str::as_bytes);
    let record = |found| Record::from_rdata(name.clone(), TTL_ONE, RData::PTR(PTR(found)));
    Name::from_labels(labels).map(record).into_iter().collect()
}

fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(query.id, MessageType::Response, OpCode::Query);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(QUERY_MAX);
        reply.edns = Some(edns);
    }
    reply
}

fn encode(reply: &Message, query: &[u8]) -> Vec<u8> {
    reply.to_vec().unwrap_or_else(|_| bare(query, ResponseCode::ServFail))
}

/// An answer without sections, made from no more than the query's header.
fn bare(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&query[..2]);
    answer[2] = 0x80 | query[2] & 0x79;
    answer[3] = 0x80 | code.low();
    answer
}

/// Where the first question ends. Its name must be written out: there is nothing before it to point to.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= bytes.len()).then_some(end)
}

#[cfg(test)]
mod tests;
