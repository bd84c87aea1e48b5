//! What is written is read back, also after the file was closed.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use weft_core::cluster::{Ipv6Range, Network};
use weft_core::id::{EndpointId, NetworkId, Vni};
use weft_core::swarm::asked::Asked;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("weft-store-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn network(name: &str) -> Network {
    Network {
        id: NetworkId::new(format!("{name:0>25}")).unwrap(),
        name: name.to_owned(),
        created: 1,
        vni: Vni::new(4097).unwrap(),
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 1, 1),
        ipv6: None,
        mtu: 1450,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

#[test]
fn committed_rows_survive_and_removed_ones_do_not() {
    let directory = Directory::new("rows");
    let (a, b) = (network("a"), network("b"));
    {
        let store = ClusterStore::open(&directory.0).unwrap();
        store
            .commit(&[Change::PutNetwork(a.clone()), Change::PutNetwork(b.clone())])
            .unwrap();
        store.commit(&[Change::RemoveNetwork(a.id.clone())]).unwrap();
    }
    let store = ClusterStore::open(&directory.0).unwrap();
    assert_eq!(store.load().unwrap(), vec![Change::PutNetwork(b)]);
}

#[test]
fn a_second_daemon_is_told_so() {
    let directory = Directory::new("twice");
    let _first = NodeStore::open(&directory.0).unwrap();
    let message = NodeStore::open(&directory.0).expect_err("locked").to_string();
    assert!(message.contains("another weftd"), "{message}");
}

#[test]
fn a_damaged_file_is_named() {
    let directory = Directory::new("damaged");
    fs::write(
        directory.0.join("node.redb"),
        b"this is no database, and long enough to look at",
    )
    .unwrap();
    let message = NodeStore::open(&directory.0).expect_err("damaged").to_string();
    assert!(message.contains("node.redb"), "{message}");
}

#[test]
fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("private");
    let _store = NodeStore::open(&directory.0).unwrap();
    let mode = fs::metadata(directory.0.join("node.redb"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn identity_and_secrets_come_back_and_go() {
    let directory = Directory::new("identity");
    let identity = Identity {
        node_name: "n1".to_owned(),
        member_id: "m".to_owned(),
        manager: "192.168.0.1:2377".to_owned(),
        ca_pem: "ca".to_owned(),
        certificate_pem: "certificate".to_owned(),
        key_pem: "key".to_owned(),
        gossip_peers: vec!["192.168.0.1:7946".parse().unwrap()],
    };
    let secrets = ManagerSecrets {
        ca_key_pem: "k".to_owned(),
        join_secret: "s".to_owned(),
        replaced_secret: None,
    };
    let store = NodeStore::open(&directory.0).unwrap();
    store.put_identity(&identity, Some(&secrets)).unwrap();
    drop(store);
    let store = NodeStore::open(&directory.0).unwrap();
    assert_eq!(store.identity().unwrap(), Some(identity));
    assert_eq!(store.manager_secrets().unwrap(), Some(secrets));
    store.forget_cluster().unwrap();
    assert_eq!(store.identity().unwrap(), None);
    assert_eq!(store.manager_secrets().unwrap(), None);
}

#[test]
fn what_was_asked_of_a_swarm_is_kept_until_it_is_forgotten() {
    let directory = Directory::new("asked");
    let asked = |digit: char| Asked {
        endpoint: EndpointId::new(digit.to_string().repeat(64)).unwrap(),
        network: "n1".to_owned(),
    };
    let attachment = StoredAttachment {
        endpoint: asked('a').endpoint,
        id: "t1".to_owned(),
        delivered: true,
    };
    let store = NodeStore::open(&directory.0).unwrap();
    for digit in ['a', 'b', 'a'] {
        store.put_swarm_asked(&asked(digit)).unwrap();
    }
    store.put_swarm_attachment(&attachment).unwrap();
    drop(store);
    let store = NodeStore::open(&directory.0).unwrap();
    assert_eq!(store.swarm_asked().unwrap(), [asked('a'), asked('b')]);
    store.remove_swarm_asked(&asked('a').endpoint).unwrap();
    assert_eq!(store.swarm_asked().unwrap(), [asked('b')]);
    assert_eq!(store.swarm_attachments().unwrap(), [attachment]);
    store.forget_swarm().unwrap();
    assert_eq!(store.swarm_asked().unwrap(), []);
}

#[test]
fn rows_of_networks_without_ipv6_are_as_they_were_before_there_was_any() {
    let directory = Directory::new("ipv6");
    let plain = network("a");
    let text = serde_json::to_string(&plain).unwrap();
    assert!(!text.contains("ipv6"), "{text}");
    assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), plain);
    let with = Network {
        ipv6: Some(Ipv6Range {
            subnet: "fd00:1::/64".parse().unwrap(),
            gateway: "fd00:1::1".parse().unwrap(),
        }),
        ..network("b")
    };
    let changes = [Change::PutNetwork(plain), Change::PutNetwork(with)];
    let store = ClusterStore::open(&directory.0).unwrap();
    store.commit(&changes).unwrap();
    assert_eq!(store.load().unwrap(), changes);
}
