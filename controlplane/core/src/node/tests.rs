//! Given these inputs at these times, exactly these effects.

use super::*;
use crate::id::Vni;
use crate::reconcile::{Entry, EntryKey};
use crate::record::{ENDPOINT_TABLE, PEER_TABLE};
use crate::wanted::sixteen_bytes;
use std::collections::BTreeMap;
use weft_dataplane::abi::{self, OverlayAddress, Sizes};

const OWN_VTEP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1));
const OTHER_VTEP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2));
const VNI: u32 = 4097;

/// A node that is alone, and the time that it is told.
struct Story {
    node: Node,
    now: Instant,
}

impl Story {
    fn new() -> Story {
        let name = NodeId::new("aaaaaaaaaaaa").unwrap();
        let gossip = networkdb::Config::new(name, SocketAddr::from((OWN_VTEP, 7946)), 1);
        let node = Node::new(
            Instant::ZERO,
            Config {
                gossip,
                vtep: OWN_VTEP,
                sizes: Sizes::DEFAULT,
            },
        );
        Story {
            node,
            now: Instant::ZERO,
        }
    }

    fn tell(&mut self, input: Input) -> &mut Self {
        self.node.handle(self.now, input);
        self
    }

    /// Lets time pass, doing what becomes due.
    fn wait(&mut self, delay: Duration) -> &mut Self {
        let until = self.now + delay;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now);
        }
        self.now = until;
        self
    }

    /// What is to be done about maps, routes and networks; gossip and logs are others' stories.
    fn effects(&mut self) -> Vec<Effect> {
        let of_interest = |effect: &Effect| {
            matches!(
                effect,
                Effect::Maps(_) | Effect::ReadMaps | Effect::FindRoutes(_) | Effect::FindNetwork(_)
            )
        };
        std::iter::from_fn(|| self.node.poll_effect())
            .filter(of_interest)
            .collect()
    }

    fn steps(&mut self) -> Vec<Step> {
        let steps = |effect| match effect {
            Effect::Maps(steps) => steps,
            _ => Vec::new(),
        };
        self.effects().into_iter().flat_map(steps).collect()
    }

    fn attached(&mut self) -> &mut Self {
        self.tell(Input::MapsRead(Box::default()));
        self.tell(Input::NetworkKnown(network()))
            .tell(Input::Attach(Box::new(endpoint())))
    }

    fn create(&mut self, key: &str, ip: Ipv4Addr, vtep: IpAddr) {
        let record = PeerRecord {
            endpoint_ip: Ipv4Net::new(ip, 24).unwrap(),
            endpoint_mac: MacAddress::from_ipv4(ip),
            tunnel_endpoint_ip: vtep,
            endpoint_ip6: None,
        };
        self.node
            .create_entry(self.now, PEER_TABLE, &network().id, key, record.encode())
            .unwrap();
    }
}

fn network() -> Network {
    Network {
        id: NetworkId::new("n8a8ie6tb3wr2e260vxj8ncy4").unwrap(),
        name: "net1".to_owned(),
        created: 0,
        vni: Vni::new(VNI).unwrap(),
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 1, 1),
        ipv6: None,
        mtu: 1450,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

fn endpoint() -> Endpoint {
    let ip = Ipv4Addr::new(10, 0, 1, 3);
    Endpoint {
        id: EndpointId::new("e".repeat(64)).unwrap(),
        network: network().id,
        ifindex: 7,
        ip,
        mac: MacAddress::from_ipv4(ip),
        record: EndpointRecord {
            name: "c1".to_owned(),
            service_name: String::new(),
            service_id: String::new(),
            virtual_ip: None,
            endpoint_ip: ip,
            ingress_ports: Vec::new(),
            aliases: Vec::new(),
            task_aliases: Vec::new(),
            service_disabled: false,
            endpoint_ip6: None,
            virtual_ip6: None,
            policy: crate::service::Policy::RoundRobin,
            affinity_seconds: 0,
            weight: 1,
        },
    }
}

fn address(last: u8) -> OverlayAddress {
    OverlayAddress {
        vni: VNI,
        ip: [10, 0, 1, last],
    }
}

fn route() -> abi::Node {
    abi::Node {
        next_hop: sixteen_bytes(OTHER_VTEP),
        source: sixteen_bytes(OWN_VTEP),
        ifindex: 2,
        mtu: 1500,
        family: abi::node::IPV4,
        padding: 0,
    }
}

#[test]
fn an_attached_endpoint_is_published_and_its_attachment_comes_last() {
    let mut story = Story::new();
    let steps = story.attached().wait(GATHER).steps();
    assert!(
        matches!(steps.last(), Some(Step::Put(Entry::Attachment(7, _)))),
        "{steps:?}"
    );
    assert!(
        steps
            .iter()
            .any(|step| matches!(step, Step::Put(Entry::Endpoint(at, _)) if *at == address(3))),
        "{steps:?}"
    );
    let db = story.node.gossip();
    for table in [PEER_TABLE, ENDPOINT_TABLE] {
        let keys: Vec<&str> = db.rows(&network().id, table).map(|row| row.key).collect();
        assert_eq!(keys, [endpoint().id.as_str()], "{table}");
    }
}

#[test]
fn a_row_of_another_host_asks_for_its_route_and_fills_peers_and_nodes() {
    let mut story = Story::new();
    story.attached().wait(GATHER).effects();
    story.create("other", Ipv4Addr::new(10, 0, 1, 9), OTHER_VTEP);
    let effects = story.wait(GATHER).effects();
    assert!(
        effects.contains(&Effect::FindRoutes(BTreeSet::from([OTHER_VTEP]))),
        "{effects:?}"
    );
    let steps = story
        .tell(Input::Routes(BTreeMap::from([(OTHER_VTEP, route())])))
        .wait(GATHER)
        .steps();
    assert_eq!(steps, [Step::Put(Entry::Node(sixteen_bytes(OTHER_VTEP), route()))]);
}

#[test]
fn what_the_kernel_holds_of_others_stays_until_the_tables_had_time_to_arrive() {
    let mut present = MapContents::default();
    let peer = abi::Peer {
        vtep: sixteen_bytes(OTHER_VTEP),
        mac: [2; 6],
        flags: abi::peer::BACKEND,
    };
    present.peers.insert(address(9), peer);
    present.services.insert(
        address(2),
        abi::Service {
            backend_count: 1,
            policy: abi::service::POLICY_ROUND_ROBIN,
            affinity_seconds: 0,
        },
    );
    let slot = abi::BackendKey {
        vni: VNI,
        vip: [10, 0, 1, 2],
        slot: 0,
    };
    present.backends.insert(slot, abi::Backend { ip: [10, 0, 1, 9] });
    let mut story = Story::new();
    story.tell(Input::MapsRead(Box::new(present)));
    story
        .tell(Input::NetworkKnown(network()))
        .tell(Input::Attach(Box::new(endpoint())));
    let before = story.wait(SETTLE - GATHER).steps();
    assert!(!before.iter().any(|step| matches!(step, Step::Remove(_))), "{before:?}");
    let steps = story.wait(GATHER * 3).steps();
    // The virtual IP refuses for a while before it goes too.
    let refusing = abi::Service {
        backend_count: 0,
        policy: abi::service::POLICY_ROUND_ROBIN,
        affinity_seconds: 0,
    };
    let expected = [
        Step::Put(Entry::Service(address(2), refusing)),
        Step::Remove(EntryKey::Backend(slot)),
        Step::Remove(EntryKey::Peer(address(9))),
    ];
    assert_eq!(steps, expected);
    let steps = story.wait(Duration::from_secs(10 * 60)).steps();
    assert_eq!(steps, [Step::Remove(EntryKey::Service(address(2)))]);
}

#[test]
fn a_detached_endpoint_takes_its_rows_and_entries_with_it() {
    let mut story = Story::new();
    story.attached().wait(SETTLE + GATHER).effects();
    let steps = story.tell(Input::Detach(endpoint().id)).wait(GATHER).steps();
    assert_eq!(
        steps.first(),
        Some(&Step::Remove(EntryKey::Attachment(7))),
        "it stops sending first"
    );
    assert!(steps.contains(&Step::Remove(EntryKey::Network(VNI))), "{steps:?}");
    assert_eq!(story.node.gossip().rows(&network().id, PEER_TABLE).count(), 0);
    assert_eq!(story.node.gossip().joined_networks().count(), 0);
}

#[test]
fn after_a_failed_write_the_maps_are_read_back_and_written_again() {
    let mut story = Story::new();
    let first = story.attached().wait(GATHER).steps();
    story.tell(Input::MapsFailed);
    assert_eq!(story.wait(MAP_RETRY).effects(), [Effect::ReadMaps]);
    let again = story.tell(Input::MapsRead(Box::default())).wait(GATHER).steps();
    assert_eq!(again, first);
}

#[test]
fn what_something_else_changed_in_the_kernel_is_put_right() {
    let mut story = Story::new();
    let steps = story.attached().wait(GATHER).steps();
    let mut present = MapContents::default();
    steps.iter().for_each(|step| reconcile_apply(step, &mut present));
    present.endpoints.clear();
    let repaired = story.tell(Input::MapsRead(Box::new(present))).wait(GATHER).steps();
    assert!(
        matches!(repaired.as_slice(), [Step::Put(Entry::Endpoint(at, _))] if *at == address(3)),
        "{repaired:?}"
    );
}

fn reconcile_apply(step: &Step, contents: &mut MapContents) {
    crate::reconcile::apply(step, contents);
}

#[test]
fn a_network_that_was_joined_by_id_alone_is_asked_for_once() {
    let mut story = Story::new();
    story.tell(Input::MapsRead(Box::default()));
    story.node.join_network(story.now, &network().id).unwrap();
    assert_eq!(story.wait(GATHER).effects(), [Effect::FindNetwork(network().id)]);
    story.create("other", Ipv4Addr::new(10, 0, 1, 9), OTHER_VTEP);
    assert_eq!(story.wait(GATHER).effects(), [], "an unknown network fills no map");
    let effects = story.tell(Input::NetworkKnown(network())).wait(GATHER).effects();
    assert!(
        effects.contains(&Effect::FindRoutes(BTreeSet::from([OTHER_VTEP]))),
        "{effects:?}"
    );
}

#[test]
fn names_follow_the_tables() {
    let mut story = Story::new();
    story.attached().wait(GATHER);
    let networks = [network().id];
    let question = Question::A("C1.net1".to_owned());
    assert_eq!(
        story.node.answer(&networks, &question, 0),
        Decision::Addresses(vec![Ipv4Addr::new(10, 0, 1, 3).into()])
    );
    story.tell(Input::Detach(endpoint().id)).wait(GATHER);
    assert_eq!(story.node.answer(&networks, &question, 0), Decision::Forward);
}

#[test]
fn a_row_that_is_no_record_is_told_once_and_harms_nothing() {
    let mut story = Story::new();
    story.attached().wait(GATHER);
    while story.node.poll_effect().is_some() {}
    story
        .node
        .create_entry(story.now, PEER_TABLE, &network().id, "bad", b"garbage".to_vec())
        .unwrap();
    let mut warnings = 0;
    for _ in 0..3 {
        story.tell(Input::NetworkKnown(network())).wait(GATHER);
        while let Some(effect) = story.node.poll_effect() {
            warnings += usize::from(matches!(
                effect,
                Effect::Log {
                    level: LogLevel::Warn,
                    ..
                }
            ));
        }
    }
    assert_eq!(warnings, 1);
}

fn task(last: u8, disabled: bool) -> EndpointRecord {
    EndpointRecord {
        name: format!("web.{last}"),
        service_name: "web".to_owned(),
        service_id: "web-id".to_owned(),
        virtual_ip: Some(Ipv4Addr::new(10, 0, 1, 2)),
        endpoint_ip: Ipv4Addr::new(10, 0, 1, last),
        service_disabled: disabled,
        ..endpoint().record
    }
}

impl Story {
    fn write(&mut self, record: &EndpointRecord) {
        let (network, key) = (network().id, record.name.clone());
        let written = match self.node.gossip().get_entry(ENDPOINT_TABLE, &network, &key) {
            Ok(_) => self
                .node
                .update_entry(self.now, ENDPOINT_TABLE, &network, &key, record.encode()),
            Err(_) => self
                .node
                .create_entry(self.now, ENDPOINT_TABLE, &network, &key, record.encode()),
        };
        written.unwrap();
    }

    /// What is told of members within so long: of the virtual IP, address and whether it takes new connections.
    fn told(&mut self, within: Duration) -> Vec<Vec<(u8, bool)>> {
        self.wait(within);
        let told = std::iter::from_fn(|| self.node.poll_effect()).filter_map(|effect| match effect {
            Effect::Members(members) => Some(members.ipv4.get(&address(2)).cloned().unwrap_or_default()),
            _ => None,
        });
        let short = |(ip, open): ([u8; 4], bool)| (ip[3], open);
        told.map(|members| members.into_iter().map(short).collect()).collect()
    }
}

#[test]
fn members_are_told_after_settling_and_when_one_goes_or_drains() {
    let mut story = Story::new();
    story.attached();
    story.write(&task(5, false));
    story.write(&task(6, false));
    assert_eq!(
        story.told(SETTLE - GATHER),
        [[]; 0],
        "the tables may still be on their way"
    );
    assert_eq!(story.told(GATHER * 3), [[(5, true), (6, true)]]);
    story.write(&task(7, false));
    assert_eq!(story.told(GATHER), [[]; 0], "one more harms nobody");
    story.write(&task(7, true));
    assert_eq!(story.told(GATHER), [[(5, true), (6, true), (7, false)]]);
    let gone = |story: &mut Story, last: u8| {
        let key = format!("web.{last}");
        let deleted = story.node.delete_entry(story.now, ENDPOINT_TABLE, &network().id, &key);
        deleted.unwrap();
        story.told(GATHER)
    };
    assert_eq!(gone(&mut story, 5), [[(6, true), (7, false)]]);
    assert_eq!(gone(&mut story, 7), [[(6, true)]]);
    // The virtual IP still refuses, and has no members.
    assert_eq!(gone(&mut story, 6), [[]]);
    assert_eq!(story.told(GATHER), [[]; 0]);
}
