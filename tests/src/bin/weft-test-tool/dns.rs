//! DNS over UDP (RFC 1035), as a container's resolver asks.

use crate::{Outcome, while_trying};
use clap::Args;
use hickory_proto::op::{Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// Where a container of Docker or weft asks.
pub(crate) const CONTAINER_RESOLVER: &str = "127.0.0.11:53";

/// The largest answer over UDP without EDNS (RFC 1035 section 2.3.4), and room to see one that is too large.
const MAX_ANSWER: usize = 4096;

/// Ask for a name; print the response code and each record on a line
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// Name to ask for; an address of in-addr.arpa for PTR
    name: String,
    /// Record type
    #[arg(long = "type", default_value = "A")]
    record_type: String,
    /// Who is asked
    #[arg(long, default_value = CONTAINER_RESOLVER)]
    resolver: SocketAddrV4,
    /// Seconds until it fails
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

pub(crate) fn query(arguments: &Query) -> Outcome {
    let record_type = arguments.record_type.to_ascii_uppercase();
    let record_type: RecordType = record_type
        .parse()
        .map_err(while_trying(format!("type {record_type}")))?;
    let answer = ask(
        &arguments.name,
        record_type,
        arguments.resolver,
        Duration::from_secs(arguments.timeout.max(1)),
    )?;
    println!("{}", answer.metadata.response_code);
    for record in &answer.answers {
        println!("{} {} {}", record.name, record.record_type(), record.data);
    }
    Ok(())
}

/// The first address of a name.
pub(crate) fn resolve(name: &str, resolver: SocketAddrV4, timeout: Duration) -> Result<Ipv4Addr, String> {
    let answer = ask(name, RecordType::A, resolver, timeout)?;
    let code = answer.metadata.response_code;
    let address = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    });
    match address {
        Some(address) if code == ResponseCode::NoError => Ok(address),
        _ => Err(format!("{resolver} has no address for {name:?}: {code}")),
    }
}

fn ask(name: &str, record_type: RecordType, resolver: SocketAddrV4, timeout: Duration) -> Result<Message, String> {
    let failed = || while_trying(format!("ask {resolver} for {name:?}"));
    // One question a socket: the port alone tells the answer apart.
    let id = 1;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).map_err(while_trying(format!("name {name:?}")))?;
    name.set_fqdn(true);
    message.add_query(Question::query(name, record_type));
    let bytes = message.to_vec().map_err(while_trying("encode the question"))?;
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(while_trying("open a socket"))?;
    socket
        .set_read_timeout(Some(timeout))
        .map_err(while_trying("open a socket"))?;
    socket.connect(resolver).map_err(failed())?;
    socket.send(&bytes).map_err(failed())?;
    let mut answer = [0; MAX_ANSWER];
    let length = socket.recv(&mut answer).map_err(failed())?;
    let answer = Message::from_vec(&answer[..length]).map_err(while_trying(format!("answer of {resolver}")))?;
    if answer.metadata.id == id {
        Ok(answer)
    } else {
        Err(format!("{resolver} answered question {}", answer.metadata.id))
    }
}
