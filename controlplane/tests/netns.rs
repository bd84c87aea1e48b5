//! Namespaces against the kernel. Needs root.
#![allow(clippy::unwrap_used)]

mod netns_guard;

use netns_guard::{DEADLINE, NetnsGuard};
use weft::netns::{Netns, NetnsError, NetnsSpec};

fn refusal(spec: NetnsSpec) -> String {
    Netns::open(&spec).unwrap_err().to_string()
}

#[test]
fn what_is_no_namespace_is_named() {
    assert_eq!(
        refusal(NetnsSpec::Name("weft-nowhere".into())),
        "network namespace \"weft-nowhere\" does not exist: `ip netns ls` lists the names, \
         `ip netns add weft-nowhere` makes one"
    );
    for name in ["", "..", "a/b", "/run/netns/x", "a\0b"] {
        let error = Netns::open(&NetnsSpec::Name(name.into())).unwrap_err();
        assert!(matches!(error, NetnsError::InvalidName { .. }), "{name:?}: {error}");
    }
    assert_eq!(refusal(NetnsSpec::Pid(u32::MAX)), "no process with pid 4294967295");
    assert_eq!(refusal(NetnsSpec::Pid(0)), "no process with pid 0");
    assert_eq!(
        refusal(NetnsSpec::Path("/run/weft-nowhere/x".into())),
        "network namespace file /run/weft-nowhere/x does not exist"
    );
    for path in [
        "/etc/passwd",
        "/",
        "/dev/null",
        "/proc/self/ns/mnt",
        "/etc/passwd/x",
        "/dev/ptmx",
    ] {
        let error = Netns::open(&NetnsSpec::Path(path.into())).unwrap_err();
        assert!(
            matches!(error, NetnsError::NotANetns { .. } | NetnsError::NoSuchPath { .. }),
            "{path}: {error}"
        );
    }
    let nul = Netns::open(&NetnsSpec::Path("/run/\0".into())).unwrap_err();
    assert!(matches!(nul, NetnsError::Kernel { .. }), "{nul}");
}

#[test]
fn a_fifo_is_refused_at_once() {
    let path = std::env::temp_dir().join(format!("weft-fifo-{}", std::process::id()));
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = Netns::open(&NetnsSpec::Path(path.clone()));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(error, Err(NetnsError::NotANetns { .. })), "{error:?}");
}

#[test]
fn the_own_namespace_is_refused() {
    let error = Netns::open(&NetnsSpec::Pid(std::process::id())).unwrap_err();
    assert!(matches!(error, NetnsError::Own { .. }), "{error}");
}

#[test]
fn a_task_runs_inside_and_leaves_the_caller_where_it_was() {
    let guard = NetnsGuard::new();
    let netns = guard.open();
    let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = here();
    let inside = netns.run(here).unwrap();
    assert_eq!(inside.to_str().unwrap(), format!("net:[{}]", netns.inode()));
    assert_eq!(here(), before);
    assert_eq!(netns, Netns::open(&NetnsSpec::Path(guard.spec().path())).unwrap());
    let panicked = netns.run(|| -> () { panic!("on purpose") });
    assert!(matches!(panicked, Err(NetnsError::Panicked { .. })));
}

#[test]
fn a_socket_made_inside_works_outside() {
    let guard = NetnsGuard::new();
    let netns = guard.open();
    let server = netns.udp_socket("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.local_addr().unwrap();
    netns
        .run(|| {
            let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"hello", address).unwrap();
        })
        .unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(server.recv(&mut buffer).unwrap(), 5);
    let taken = netns.udp_socket(address).unwrap_err();
    assert!(taken.to_string().contains("cannot bind UDP 127.0.0.1:"), "{taken}");
    let listener = netns.tcp_listener("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    netns
        .run(|| drop(std::net::TcpStream::connect(address).unwrap()))
        .unwrap();
    listener.accept().unwrap();
}
