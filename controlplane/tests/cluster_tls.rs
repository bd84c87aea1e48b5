//! The cluster port: who gets in with a token, who does not, and what they are told.
#![allow(clippy::unwrap_used)]

mod small_daemon;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use small_daemon::{DEADLINE, Mind, NODE, SECRET, token, within};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use weft::cluster::client::{ManagerClient, join};
use weft::cluster::{Authority, JoinToken, server};
use weft::daemon::{Handle, Refused, RefusedKind};
use weft::store::Identity;
use weft_core::cluster::{Reply, Request};
use weft_core::id::EndpointId;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A manager on a port of loopback.
struct Manager {
    address: SocketAddr,
    ca_pem: String,
    ca_key_pem: String,
    token: String,
    server: AbortHandle,
}

impl Manager {
    async fn start() -> Manager {
        let authority = Authority::create().unwrap();
        let (certificate, key) = authority.issue_manager(NODE).unwrap();
        Manager::start_with(authority, certificate, key).await
    }

    /// With this certificate instead of the proper one.
    async fn start_with(authority: Authority, certificate_pem: String, key_pem: String) -> Manager {
        let (ca_pem, ca_key_pem) = (authority.certificate_pem(), authority.key_pem());
        let token = token(&authority);
        let identity = identity(&ca_pem, certificate_pem, key_pem);
        let listener = server::bind(SocketAddr::new(LOOPBACK, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (handle, queue) = Handle::new();
        tokio::spawn(Mind::with_authority(authority).run(queue));
        let server = tokio::spawn(server::serve(listener, server::acceptor(&identity).unwrap(), handle)).abort_handle();
        Manager {
            address,
            ca_pem,
            ca_key_pem,
            token,
            server,
        }
    }

    async fn join(&self, name: &str) -> Result<Identity, Refused> {
        join(&self.token, &self.address.to_string(), 1, name, LOOPBACK)
            .await
            .map(|joined| joined.identity)
    }

    async fn members(&self) -> Vec<String> {
        let authority = Authority::load(&self.ca_pem, &self.ca_key_pem).unwrap();
        let (certificate, key) = authority.issue_manager(NODE).unwrap();
        let mut identity = identity(&self.ca_pem, certificate, key);
        identity.manager = self.address.to_string();
        match ManagerClient::new(&identity)
            .unwrap()
            .request(&Request::MemberList)
            .await
            .unwrap()
        {
            Reply::Members(members) => members.into_iter().map(|member| member.name).collect(),
            other => panic!("{other:?} are no members"),
        }
    }

    /// TLS that trusts the manager and shows no certificate.
    async fn connect_without_certificate(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("manager.weft").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap()
    }

    /// Sends raw HTTP without a certificate; gives the whole answer.
    async fn http(&self, path: &str, body: &[u8]) -> String {
        let mut tls = self.connect_without_certificate().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        tls.write_all(head.as_bytes()).await.unwrap();
        // The manager may have had enough before all of it is sent.
        let _ = tls.write_all(body).await;
        let mut answer = Vec::new();
        let _ = tls.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn identity(ca_pem: &str, certificate_pem: String, key_pem: String) -> Identity {
    Identity {
        node_name: NODE.to_owned(),
        member_id: String::new(),
        manager: String::new(),
        ca_pem: ca_pem.to_owned(),
        certificate_pem,
        key_pem,
        gossip_peers: vec![],
    }
}

fn allocate(node: &str) -> Request {
    Request::Allocate {
        endpoint: EndpointId::new("ab".repeat(32)).unwrap(),
        network: "net1".to_owned(),
        node: node.to_owned(),
        name: "c1".to_owned(),
        service: None,
        aliases: vec![],
        ip: None,
        weight: None,
    }
}

fn network(name: &str) -> Request {
    Request::NetworkCreate {
        name: name.to_owned(),
        subnet: None,
        gateway: None,
        ipv6: None,
        options: Default::default(),
        labels: Default::default(),
    }
}

mod tokens {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let secret = JoinToken::new_secret().unwrap();
        let token = JoinToken::new(b"certificate", &secret);
        let text = token.to_string();
        assert!(text.starts_with("WFTKN-1-") && text.ends_with(&secret), "{text}");
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_ne!(secret, JoinToken::new_secret().unwrap(), "secrets are fresh");
    }

    #[test]
    fn anything_else_is_malformed() {
        let digest = "0".repeat(64);
        for text in [
            String::new(),
            "WFTKN-1-".to_owned(),
            "WFTKN-1--".to_owned(),
            format!("SWMTKN-1-{digest}-{SECRET}"),
            format!("WFTKN-2-{digest}-{SECRET}"),
            format!("WFTKN-1-{digest}"),
            format!("WFTKN-1-{digest}-"),
            format!("WFTKN-1-{digest}-{SECRET}0"),
            format!("WFTKN-1-{digest}-{SECRET}-"),
            format!("WFTKN-1-{digest}0-{SECRET}"),
            format!("WFTKN-1-{}-{SECRET}", "g".repeat(64)),
            format!("WFTKN-1-{}-{SECRET}", "ß".repeat(32)),
            format!("WFTKN-1-+{}-{SECRET}", "0".repeat(63)),
            format!(" WFTKN-1-{digest}-{SECRET}"),
            format!("WFTKN-1-{digest}-{SECRET}\n"),
        ] {
            let error = text.parse::<JoinToken>().expect_err(&text).to_string();
            assert!(
                error.contains("malformed") && error.contains("WFTKN-1-") && !error.contains('\n'),
                "{text:?}: {error}"
            );
        }
    }
}

mod joining {
    use super::*;

    #[test]
    fn a_node_with_the_token_becomes_a_member_and_may_ask() {
        within(async {
            let manager = Manager::start().await;
            let identity = manager.join("node2").await.unwrap();
            assert_eq!(
                (identity.node_name.as_str(), &identity.manager),
                ("node2", &manager.address.to_string())
            );
            assert_eq!(identity.gossip_peers, ["127.0.0.1:7946".parse().unwrap()]);
            assert_eq!(
                CertificateDer::from_pem_slice(identity.ca_pem.as_bytes()).unwrap(),
                CertificateDer::from_pem_slice(manager.ca_pem.as_bytes()).unwrap()
            );
            let client = ManagerClient::new(&identity).unwrap();
            assert!(matches!(client.request(&network("net1")).await.unwrap(), Reply::Network(n) if n.name == "net1"));
            assert_eq!(manager.members().await, [NODE, "node2"]);
        });
    }

    #[test]
    fn a_member_waits_for_other_settings_than_those_that_it_has() {
        within(async {
            let manager = Manager::start().await;
            let client = Arc::new(ManagerClient::new(&manager.join("node2").await.unwrap()).unwrap());
            client.request(&network("net1")).await.unwrap();
            let ask = async |json: &str| client.request(&serde_json::from_str(json).unwrap()).await.unwrap();
            ask(r#"{"request": "service-create", "name": "web", "networks": ["net1"], "mode": "vip"}"#).await;
            let mut task = allocate("node2");
            if let Request::Allocate { service, .. } = &mut task {
                *service = Some("web".to_owned());
            }
            client.request(&task).await.unwrap();
            let first = client.settings(None).await.unwrap().unwrap();
            assert_eq!(first.services.len(), 1);
            let (waiting, version) = (Arc::clone(&client), Some(first.version));
            let waiting = tokio::spawn(async move { waiting.settings(version).await });
            ask(r#"{"request": "service-update", "service": "web", "affinity": 60}"#).await;
            let next = waiting.await.unwrap().unwrap().unwrap();
            assert_eq!(next.services[0].service.affinity_seconds, 60);
        });
    }

    #[test]
    fn the_manager_knows_a_node_by_its_certificate() {
        within(async {
            let manager = Manager::start().await;
            let client = ManagerClient::new(&manager.join("node2").await.unwrap()).unwrap();
            client.request(&network("net1")).await.unwrap();
            let refused = client.request(&allocate("node3")).await.unwrap_err();
            assert_eq!(refused.message, "node node2 may speak for itself only");
            assert!(matches!(
                client.request(&allocate("node2")).await.unwrap(),
                Reply::Allocated { .. }
            ));
        });
    }

    #[test]
    fn refusals_keep_their_kind_on_the_way() {
        within(async {
            let manager = Manager::start().await;
            let client = ManagerClient::new(&manager.join("node2").await.unwrap()).unwrap();
            client.request(&network("net1")).await.unwrap();
            let missing = Request::NetworkInspect {
                network: "nope".to_owned(),
            };
            assert_eq!(client.request(&missing).await.unwrap_err().kind, RefusedKind::NotFound);
            assert_eq!(
                client.request(&network("net1")).await.unwrap_err().kind,
                RefusedKind::Conflict
            );
            assert_eq!(
                client.request(&network("no name")).await.unwrap_err().kind,
                RefusedKind::Invalid
            );
        });
    }

    #[test]
    fn another_clusters_token_is_told_and_its_secret_is_kept() {
        within(async {
            let (manager, other) = (Manager::start().await, Manager::start().await);
            let refused = join(&other.token, &manager.address.to_string(), 1, "node2", LOOPBACK)
                .await
                .unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Invalid);
            let address = manager.address.to_string();
            assert!(
                refused.message.contains(&address) && refused.message.contains("token"),
                "{refused}"
            );
            assert_eq!(
                manager.members().await,
                [NODE],
                "the secret must not reach a manager that is not proven"
            );
        });
    }

    #[test]
    fn a_wrong_secret_lets_nobody_in() {
        within(async {
            let manager = Manager::start().await;
            let token = manager.token.replace(SECRET, &"f".repeat(32));
            let refused = join(&token, &manager.address.to_string(), 1, "node2", LOOPBACK)
                .await
                .unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Invalid);
            assert!(refused.message.contains("secret"), "{refused}");
            assert_eq!(manager.members().await, [NODE]);
        });
    }

    #[test]
    fn a_malformed_token_is_told_before_anybody_is_asked() {
        within(async {
            let refused = join("nonsense", "host.invalid", 1, "node2", LOOPBACK)
                .await
                .unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Invalid);
            assert!(refused.message.contains("\"nonsense\" is malformed"), "{refused}");
        });
    }

    #[test]
    fn the_default_port_is_used_when_none_is_named() {
        within(async {
            let manager = Manager::start().await;
            let identity = join(&manager.token, "127.0.0.1", manager.address.port(), "node2", LOOPBACK)
                .await
                .unwrap();
            assert_eq!(identity.identity.manager, manager.address.to_string());
        });
    }

    #[test]
    fn a_worker_cannot_pass_for_the_manager() {
        within(async {
            let manager = Manager::start().await;
            let worker = manager.join("node2").await.unwrap();
            let authority = Authority::load(&manager.ca_pem, &manager.ca_key_pem).unwrap();
            let impostor = Manager::start_with(authority, worker.certificate_pem, worker.key_pem).await;
            let refused = join(&manager.token, &impostor.address.to_string(), 1, "node3", LOOPBACK)
                .await
                .unwrap_err();
            assert!(refused.message.contains("certificate"), "{refused}");
        });
    }

    #[test]
    fn of_a_signing_request_only_the_key_counts() {
        let authority = Authority::create().unwrap();
        let mut greedy = CertificateParams::new(vec!["manager.weft".to_owned()]).unwrap();
        greedy.distinguished_name.push(DnType::CommonName, NODE);
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = greedy
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
            .unwrap();
        let signed = authority.sign(&request, "node2").unwrap();
        let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=node2");
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        assert!(!certificate.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(authority.sign("no request", "node2").is_err());
    }
}

mod managers_that_do_not_answer {
    use super::*;

    fn any_token() -> String {
        token(&Authority::create().unwrap())
    }

    #[test]
    fn nobody_listens() {
        within(async {
            let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            drop(listener);
            let refused = join(&any_token(), &address, 1, "node2", LOOPBACK).await.unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Unavailable);
            assert!(
                refused.message.contains(&address) && refused.message.contains("refused"),
                "{refused}"
            );
        });
    }

    #[test]
    fn somebody_listens_and_says_nothing() {
        within(async {
            let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let refused = join(&any_token(), &address, 1, "node2", LOOPBACK).await.unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Unavailable);
            assert!(
                refused.message.contains(&address) && refused.message.contains("no answer"),
                "{refused}"
            );
        });
    }

    #[test]
    fn something_else_listens() {
        within(async {
            let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let other = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            });
            let refused = join(&any_token(), &address, 1, "node2", LOOPBACK).await.unwrap_err();
            assert!(
                refused.message.contains(&address) && !refused.message.contains('\n'),
                "{refused}"
            );
            let _ = tokio::time::timeout(DEADLINE, other).await.unwrap();
        });
    }

    /// A certificate of an authority's for these years.
    fn certificate(authority: &Authority, name: &str, years: (i32, i32)) -> (String, String) {
        let ca_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem(), ca_key).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }

    /// One clear line, with the manager's address and these words.
    fn told(refused: &Refused, address: SocketAddr, words: &str) {
        let line = refused.to_string();
        assert!(
            line.contains(&address.to_string()) && line.contains(words) && !line.contains('\n'),
            "{line}"
        );
        assert!(!line.contains("is away"), "{line}");
    }

    #[test]
    fn a_certificate_that_is_old_or_of_the_future_is_told_with_its_date_and_the_clock_s() {
        within(async {
            for (years, words) in [
                (
                    (2020, 2021),
                    "has expired at 2021-01-01T00:00:00Z, and this host's clock says 20",
                ),
                (
                    (2090, 2095),
                    "is not valid before 2090-01-01T00:00:00Z, and this host's clock says 20",
                ),
            ] {
                let authority = Authority::create().unwrap();
                let (certificate, key) = certificate(&authority, "manager.weft", years);
                let manager = Manager::start_with(authority, certificate, key).await;
                told(&manager.join("node2").await.unwrap_err(), manager.address, words);
            }
        });
    }

    #[test]
    fn a_node_whose_own_certificate_is_not_valid_now_is_told_so() {
        within(async {
            let manager = Manager::start().await;
            let authority = Authority::load(&manager.ca_pem, &manager.ca_key_pem).unwrap();
            for years in [(2020, 2021), (2090, 2095)] {
                let (certificate, key) = certificate(&authority, "node2", years);
                let mut identity = identity(&manager.ca_pem, certificate, key);
                identity.manager = manager.address.to_string();
                let client = ManagerClient::new(&identity).unwrap();
                let refused = client.request(&Request::MemberList).await.unwrap_err();
                told(
                    &refused,
                    manager.address,
                    "refused this node's certificate: by its clock it has expired, or is not valid yet",
                );
            }
        });
    }
}

mod callers_that_misbehave {
    use super::*;

    #[test]
    fn garbage_ends_its_own_connection_only() {
        within(async {
            let manager = Manager::start().await;
            let mut garbage = TcpStream::connect(manager.address).await.unwrap();
            garbage.write_all(&[0xff; 4096]).await.unwrap();
            let mut answer = Vec::new();
            // A reset is as good an end as a close.
            let _ = garbage.read_to_end(&mut answer).await;
            manager.join("node2").await.unwrap();
        });
    }

    #[test]
    fn a_silent_caller_is_let_go_and_keeps_nobody_waiting() {
        within(async {
            let manager = Manager::start().await;
            let mut silent = TcpStream::connect(manager.address).await.unwrap();
            manager.join("node2").await.unwrap();
            let mut answer = Vec::new();
            let _ = silent.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "a caller that says nothing is told nothing");
        });
    }

    #[test]
    fn silent_after_the_handshake_is_let_go_too() {
        within(async {
            let manager = Manager::start().await;
            let mut tls = manager.connect_without_certificate().await;
            let mut answer = Vec::new();
            let _ = tls.read_to_end(&mut answer).await;
        });
    }

    #[test]
    fn without_a_certificate_only_joining_is_possible() {
        within(async {
            let manager = Manager::start().await;
            let body = serde_json::to_vec(&Request::NetworkList).unwrap();
            let answer = manager.http("/v1/request", &body).await;
            assert!(
                answer.starts_with("HTTP/1.1 400") && answer.contains("certificate"),
                "{answer}"
            );
        });
    }

    #[test]
    fn another_clusters_certificate_opens_nothing() {
        within(async {
            let (manager, other) = (Manager::start().await, Manager::start().await);
            let mut identity = other.join("node2").await.unwrap();
            identity.ca_pem.clone_from(&manager.ca_pem);
            identity.manager = manager.address.to_string();
            let refused = ManagerClient::new(&identity)
                .unwrap()
                .request(&Request::NetworkList)
                .await
                .unwrap_err();
            assert!(refused.message.contains(&identity.manager), "{refused}");
        });
    }

    #[test]
    fn requests_that_are_none_are_told_so() {
        within(async {
            let manager = Manager::start().await;
            for (path, body, status, words) in [
                ("/v1/join", &b"{"[..], "400", "not understood"),
                ("/v1/join", br#"{"secret":"x"}"#, "400", "missing field"),
                (
                    "/v1/join",
                    br#"{"secret":"x","name":"n","address":"nowhere","csr":""}"#,
                    "400",
                    "address",
                ),
                ("/v1/nonsense", b"{}", "404", "/v1/nonsense"),
                ("/", b"", "404", "no such path"),
            ] {
                let answer = manager.http(path, body).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words),
                    "{path}: {answer}"
                );
            }
            let answer = manager.http("/v1/join", &vec![b' '; 2 << 20]).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
            manager.join("node2").await.unwrap();
        });
    }
}
