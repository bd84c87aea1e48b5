//! A client of the resolver in a namespace, and a name server of the host.
#![allow(clippy::unwrap_used)]

use crate::netns_guard::DEADLINE;
use hickory_proto::op::{Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft::netns::Netns;

/// Where the resolver is.
pub(crate) const SERVER: &str = "127.0.0.11:53";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

pub(crate) const BOTH: [Over; 2] = [Over::Udp, Over::Tcp];

/// A client's socket inside the namespace.
pub(crate) fn datagrams(netns: &Netns) -> UdpSocket {
    let socket = netns.udp_socket("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    UdpSocket::from_std(socket).unwrap()
}

pub(crate) fn connect(netns: &Netns) -> TcpStream {
    let stream = netns.run(|| std::net::TcpStream::connect(SERVER)).unwrap().unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

pub(crate) async fn exchange(netns: &Netns, over: Over, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let answer = async {
        match over {
            Over::Udp => {
                let socket = datagrams(netns);
                socket.send_to(&bytes, SERVER).await.unwrap();
                receive(&socket).await
            }
            Over::Tcp => {
                let mut stream = connect(netns);
                write(&mut stream, &bytes).await;
                read(&mut stream).await
            }
        }
    };
    let answer = timeout(DEADLINE, answer).await.unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.id, answer.message_type), (message.id, MessageType::Response));
    assert!(answer.recursion_available);
    answer
}

pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65535];
    let (length, server) = socket.recv_from(&mut answer).await.unwrap();
    assert_eq!(server, SERVER.parse().unwrap());
    answer.truncate(length);
    answer
}

pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    stream
        .write_all(&[&length.to_be_bytes()[..], message].concat())
        .await
        .unwrap();
}

pub(crate) async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut message).await.unwrap();
    message
}

pub(crate) fn data(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

/// A name server of the host: answers every A question over UDP and TCP with one address, or with an error.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// Id and source port of each query.
    pub(crate) seen: Arc<Mutex<Vec<(u16, u16)>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Upstream {
    pub(crate) async fn start(address: &str, code: ResponseCode, found: Ipv4Addr) -> Upstream {
        let udp = UdpSocket::bind(address).await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = {
            let seen = Arc::clone(&seen);
            move |query: &[u8], port: u16| {
                let query = Message::from_vec(query).unwrap();
                seen.lock().unwrap().push((query.id, port));
                let mut answer = Message::new(query.id, MessageType::Response, OpCode::Query);
                answer.metadata = Metadata::response_from_request(&query.metadata);
                answer.metadata.recursion_available = true;
                answer.metadata.response_code = code;
                answer.queries = query.queries;
                if code == ResponseCode::NoError {
                    let name = answer.queries[0].name().clone();
                    answer.add_answer(Record::from_rdata(name, 77, RData::A(A(found))));
                }
                answer.to_vec().unwrap()
            }
        };
        let over_tcp = answer.clone();
        let datagrams = tokio::spawn(async move {
            let mut buffer = vec![0; 65535];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                let good = answer(&buffer[..length], client.port());
                // What an attacker would send comes first: a wrong address under another id and to another question.
                let mut wrong = good.clone();
                *wrong.last_mut().unwrap() ^= 0xff;
                let mut forged = wrong.clone();
                forged[0] ^= 0xff;
                udp.send_to(&forged, client).await.unwrap();
                let mut forged = wrong;
                forged[13] ^= 0x03;
                udp.send_to(&forged, client).await.unwrap();
                udp.send_to(&good, client).await.unwrap();
            }
        });
        let streams = tokio::spawn(async move {
            loop {
                let (mut stream, client) = tcp.accept().await.unwrap();
                let query = read(&mut stream).await;
                write(&mut stream, &over_tcp(&query, client.port())).await;
            }
        });
        Upstream {
            address,
            seen,
            tasks: [datagrams, streams],
        }
    }

    pub(crate) fn queries(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}
