//! HTTP/1.1 (RFC 9112), as little of it as tells who answered.

use crate::{Outcome, dns, while_trying};
use clap::Args;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

/// The longest request or answer that is read, in bytes: none here comes near it.
const MAX_MESSAGE: u64 = 64 * 1024;

/// A client that sends nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(10);

/// Answer every request with the server's name and address
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Name to answer with
    #[arg(long)]
    name: String,
    /// Where to listen
    #[arg(long, default_value = "[::]:80")]
    listen: SocketAddr,
}

/// Fetch http://HOST[:PORT]/PATH, each time on a new connection, and print the answers
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to fetch
    url: String,
    /// How often
    #[arg(short = 'n', long, default_value_t = 1)]
    times: u32,
    /// Who is asked for the host's address
    #[arg(long, default_value = dns::CONTAINER_RESOLVER)]
    resolver: SocketAddrV4,
    /// Seconds until an attempt fails
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

pub(crate) fn serve(arguments: &Serve) -> Outcome {
    let listener =
        TcpListener::bind(arguments.listen).map_err(while_trying(format!("listen on {}", arguments.listen)))?;
    for connection in listener.incoming() {
        match connection {
            Ok(connection) => {
                let name = arguments.name.clone();
                // A thread each: a client that hangs keeps nobody else waiting.
                std::thread::spawn(move || answer(connection, &name).map_err(|error| eprintln!("{error}")));
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
    Ok(())
}

fn answer(mut connection: TcpStream, name: &str) -> std::io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    let (client, own) = (connection.peer_addr()?, connection.local_addr()?);
    let mut request = BufReader::new((&connection).take(MAX_MESSAGE));
    let mut line = String::new();
    while request.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        line.clear();
    }
    let body = format!(
        "{name} at {} answers {}\n",
        own.ip().to_canonical(),
        client.ip().to_canonical()
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes())
}

pub(crate) fn get(arguments: &Get) -> Outcome {
    let (host, port, path) = split(&arguments.url)?;
    let timeout = Duration::from_secs(arguments.timeout.max(1));
    for _ in 0..arguments.times {
        let address = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => address,
            Err(_) => IpAddr::V4(dns::resolve(host, arguments.resolver, timeout)?),
        };
        print!("{}", fetch(SocketAddr::new(address, port), host, path, timeout)?);
    }
    Ok(())
}

fn fetch(server: SocketAddr, host: &str, path: &str, timeout: Duration) -> Result<String, String> {
    let mut connection =
        TcpStream::connect_timeout(&server, timeout).map_err(while_trying(format!("connect to {server}")))?;
    let failed = || while_trying(format!("fetch from {server}"));
    connection.set_read_timeout(Some(timeout)).map_err(failed())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).map_err(failed())?;
    let mut answer = String::new();
    connection
        .take(MAX_MESSAGE)
        .read_to_string(&mut answer)
        .map_err(failed())?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(format!("{server} answered without an empty line: {answer:?}"))?;
    if head.starts_with("HTTP/1.1 200 ") {
        Ok(body.to_owned())
    } else {
        Err(format!(
            "{server} answered {:?}",
            head.lines().next().unwrap_or_default()
        ))
    }
}

/// Host, port and path of `http://host[:port][/path]`.
fn split(url: &str) -> Result<(&str, u16, &str), String> {
    let wrong = || format!("{url:?} is not http://HOST[:PORT][/PATH]");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    // An IPv6 address stands in brackets (RFC 3986 section 3.2.2).
    let end_of_address = authority.find(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[end_of_address..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(end_of_address + colon);
            (host, port[1..].parse().map_err(|_| wrong())?)
        }
        None => (authority, 80),
    };
    if host.is_empty() {
        Err(wrong())
    } else {
        Ok((host, port, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split("http://my-web"), Ok(("my-web", 80, "/")));
        assert_eq!(split("http://10.0.0.2:8080/a/b"), Ok(("10.0.0.2", 8080, "/a/b")));
        assert_eq!(split("http://[fd00::2]/a"), Ok(("[fd00::2]", 80, "/a")));
        assert_eq!(split("http://[fd00::2]:81"), Ok(("[fd00::2]", 81, "/")));
        for wrong in ["my-web", "https://a", "http://", "http://:80/", "http://a:port/"] {
            assert!(split(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
