//! DNS over UDP or TCP (RFC 1035), as a container's resolver asks.

use crate::{Outcome, while_trying};
use clap::Args;
use hickory_proto::op::{Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
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
    /// Ask over TCP
    #[arg(long)]
    tcp: bool,
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
        arguments.tcp,
    )?;
    println!("{}", answer.metadata.response_code);
    for record in &answer.answers {
        println!("{} {} {}", record.name, record.record_type(), record.data);
    }
    Ok(())
}

/// The first address of a name.
pub(crate) fn resolve(name: &str, resolver: SocketAddrV4, timeout: Duration) -> Result<Ipv4Addr, String> {
    let answer = ask(name, RecordType::A, resolver, timeout, false)?;
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

fn ask(
    name: &str,
    record_type: RecordType,
    resolver: SocketAddrV4,
    timeout: Duration,
    tcp: bool,
) -> Result<Message, String> {
    // One question a socket: the port alone tells the answer apart.
    let id = 1;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let text = name;
    let mut name = Name::from_ascii(name).map_err(while_trying(format!("name {name:?}")))?;
    name.set_fqdn(true);
    message.add_query(Question::query(name, record_type));
    let bytes = message.to_vec().map_err(while_trying("encode the question"))?;
    let exchange = if tcp { ask_tcp } else { ask_udp };
    let answer = exchange(&bytes, resolver, timeout).map_err(while_trying(format!("ask {resolver} for {text:?}")))?;
    let answer = Message::from_vec(&answer).map_err(while_trying(format!("answer of {resolver}")))?;
    if answer.metadata.id == id {
        Ok(answer)
    } else {
        Err(format!("{resolver} answered question {}", answer.metadata.id))
    }
}

fn ask_udp(question: &[u8], resolver: SocketAddrV4, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(resolver)?;
    socket.send(question)?;
    let mut answer = vec![0; MAX_ANSWER];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// A message over TCP has its length in front (RFC 1035 section 4.2.2).
fn ask_tcp(question: &[u8], resolver: SocketAddrV4, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&resolver.into(), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
