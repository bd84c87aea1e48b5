//! Addresses that were asked for, and whose answer never came (`spec/swarm-agent.md` 8.10).
//!
//! The managers may hold such an address under an id that this node was not told. An active node is told of it sooner or later. Of a
//! drained one the managers tell only that they reserve something for it on the network: whether that is the lost address shows when
//! nothing else of this node is on that network.

use super::network;
use super::proto::NetworkAttachment;
use crate::id::EndpointId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// For whom.
    pub endpoint: EndpointId,
    /// The network's id or name, as the user gave it.
    pub network: String,
}

/// A network on which the managers reserve an address for this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reserved {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl Reserved {
    /// What the managers told of this node, sorted.
    pub fn all(attachments: &[NetworkAttachment]) -> Vec<Reserved> {
        let networks = attachments.iter().filter_map(|attachment| attachment.network.as_ref());
        let mut all: Vec<Reserved> = networks
            .map(|told| Reserved {
                id: told.id.clone(),
                name: network::name(told).to_owned(),
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn is(&self, network: &str) -> bool {
        self.id == network || self.name == network
    }
}

/// How far an asking is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Somebody waits for the answer.
    Waiting,
    /// Nobody does any more.
    Lost,
    /// The managers told of the address: it is being given back.
    Told,
}

/// All that was asked for and not answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Askings {
    by_endpoint: BTreeMap<EndpointId, (String, Stage)>,
}

/// What else is known of this node's networks.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// Where the managers reserve an address for this node.
    pub reserved: &'a [Reserved],
    /// Ids of the networks that endpoints of this node are on.
    pub in_use: BTreeSet<&'a str>,
    /// For whom an address is held under an id that is known.
    pub remembered: BTreeSet<&'a EndpointId>,
    /// On which networks some of these are is not known: they are being given back, or not connected yet.
    pub unplaced: bool,
    /// What the managers told has not changed for so long that it says all that they did.
    pub settled: bool,
    /// The managers tell an active node of all that they hold for it.
    pub active: bool,
}

/// What became of lost askings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Nothing is held for these.
    pub forget: Vec<EndpointId>,
    /// Names of the networks on which an address is held that cannot be given back.
    pub held: BTreeSet<String>,
}

impl Askings {
    /// Those of an earlier run, for which nobody waits any more.
    pub fn restore(asked: impl IntoIterator<Item = Asked>) -> Askings {
        let lost = |asked: Asked| (asked.endpoint, (asked.network, Stage::Lost));
        Askings {
            by_endpoint: asked.into_iter().map(lost).collect(),
        }
    }

    /// The managers are about to be asked.
    pub fn begin(&mut self, asked: Asked) {
        self.by_endpoint.insert(asked.endpoint, (asked.network, Stage::Waiting));
    }

    /// Nobody waits any more. True when nothing is left to remember.
    pub fn end(&mut self, endpoint: &EndpointId, answered: bool) -> bool {
        match self.by_endpoint.get_mut(endpoint) {
            Some(_) if answered => self.by_endpoint.remove(endpoint).is_some(),
            Some((_, stage)) => {
                *stage = Stage::Lost;
                false
            }
            None => false,
        }
    }

    /// The managers tell of an address for this endpoint. True when nobody waits for it, so that it is to be given back.
    pub fn told(&mut self, endpoint: &EndpointId) -> bool {
        match self.by_endpoint.get_mut(endpoint) {
            Some((_, stage)) if *stage != Stage::Waiting => {
                *stage = Stage::Told;
                true
            }
            _ => false,
        }
    }

    /// An address for this endpoint is not held any more. True when nothing is left to remember.
    pub fn gone(&mut self, endpoint: &EndpointId) -> bool {
        let is_told = |(_, stage): &(String, Stage)| *stage == Stage::Told;
        self.by_endpoint.get(endpoint).is_some_and(is_told) && self.by_endpoint.remove(endpoint).is_some()
    }

    /// Those that are being given back.
    pub fn being_given_back(&self) -> impl Iterator<Item = &EndpointId> {
        let told = self.by_endpoint.iter().filter(|(_, (_, stage))| *stage == Stage::Told);
        told.map(|(endpoint, _)| endpoint)
    }

    /// Compares the lost ones with what the managers reserve for this node.
    pub fn review(&self, known: &Known<'_>) -> Review {
        let mut review = Review::default();
        for (endpoint, (network, _)) in self.by_endpoint.iter().filter(|(_, (_, stage))| *stage == Stage::Lost) {
            if known.remembered.contains(endpoint) {
                continue;
            }
            match known.reserved.iter().find(|reserved| reserved.is(network)) {
                None if known.settled => review.forget.push(endpoint.clone()),
                Some(reserved) if !known.active && self.only_lost_on(reserved, known) => {
                    review.held.insert(reserved.name.clone());
                }
                _ => {}
            }
        }
        review
    }

    /// Whether nothing but what is lost can be why the managers reserve an address there.
    fn only_lost_on(&self, reserved: &Reserved, known: &Known<'_>) -> bool {
        let others = self.by_endpoint.values();
        let mut others = others.filter(|(network, stage)| *stage != Stage::Lost && reserved.is(network));
        others.next().is_none() && !known.unplaced && !known.in_use.contains(reserved.id.as_str())
    }

    /// Forgets what a review found to be nothing.
    pub fn forget(&mut self, endpoint: &EndpointId) {
        self.by_endpoint.remove(endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::Network;
    use super::*;

    fn endpoint(digit: char) -> EndpointId {
        EndpointId::new(digit.to_string().repeat(64)).unwrap()
    }

    fn asked(digit: char, network: &str) -> Asked {
        Asked {
            endpoint: endpoint(digit),
            network: network.to_owned(),
        }
    }

    fn on(id: &str) -> NetworkAttachment {
        NetworkAttachment {
            network: Some(Network {
                id: id.to_owned(),
                ..Network::default()
            }),
            addresses: Vec::new(),
        }
    }

    fn reserved() -> Vec<Reserved> {
        vec![Reserved {
            id: "id1".to_owned(),
            name: "n1".to_owned(),
        }]
    }

    fn settled(reserved: &[Reserved]) -> Known<'_> {
        Known {
            reserved,
            settled: true,
            ..Known::default()
        }
    }

    fn held(review: &Review) -> Vec<&str> {
        assert_eq!(review.forget, []);
        review.held.iter().map(String::as_str).collect()
    }

    #[test]
    fn an_answer_ends_it_and_none_does_not() {
        let mut askings = Askings::default();
        askings.begin(asked('a', "n1"));
        askings.begin(asked('b', "n1"));
        assert!(askings.end(&endpoint('a'), true));
        assert!(!askings.end(&endpoint('b'), false));
        // What never was asked, because no manager was there.
        assert!(!askings.end(&endpoint('c'), false) && !askings.end(&endpoint('c'), true));
        assert_eq!(askings, Askings::restore([asked('b', "n1")]));
    }

    #[test]
    fn only_what_nobody_waits_for_is_given_back() {
        let mut askings = Askings::restore([asked('a', "n1")]);
        askings.begin(asked('b', "n1"));
        assert!(!askings.told(&endpoint('b')) && !askings.told(&endpoint('c')));
        assert!(!askings.gone(&endpoint('a')), "it was not told of");
        assert!(askings.told(&endpoint('a')) && askings.told(&endpoint('a')));
        assert_eq!(askings.being_given_back().collect::<Vec<_>>(), [&endpoint('a')]);
        assert_eq!(askings.review(&settled(&[])), Review::default());
        assert!(askings.gone(&endpoint('a')) && !askings.gone(&endpoint('a')));
        assert!(!askings.gone(&endpoint('b')));
    }

    #[test]
    fn what_the_managers_do_not_reserve_is_forgotten_once_they_settled() {
        let mut askings = Askings::restore([asked('a', "n1")]);
        assert_eq!(askings.review(&Known::default()), Review::default());
        let review = askings.review(&settled(&[]));
        assert_eq!((review.forget, review.held.len()), (vec![endpoint('a')], 0));
        askings.forget(&endpoint('a'));
        assert_eq!(askings, Askings::default());
    }

    #[test]
    fn a_reservation_that_nothing_else_explains_is_told() {
        let reserved = reserved();
        for network in ["n1", "id1"] {
            let askings = Askings::restore([asked('a', network), asked('b', network)]);
            assert_eq!(held(&askings.review(&settled(&reserved))), ["n1"]);
        }
    }

    #[test]
    fn a_reservation_with_another_reason_says_nothing() {
        let reserved = reserved();
        let mut askings = Askings::restore([asked('a', "n1")]);
        let a = endpoint('a');
        for known in [
            Known {
                in_use: BTreeSet::from(["id1"]),
                ..settled(&reserved)
            },
            Known {
                remembered: BTreeSet::from([&a]),
                ..settled(&reserved)
            },
            Known {
                unplaced: true,
                ..settled(&reserved)
            },
            Known {
                active: true,
                ..settled(&reserved)
            },
        ] {
            assert_eq!(askings.review(&known), Review::default(), "{known:?}");
        }
        let elsewhere = Known {
            in_use: BTreeSet::from(["id2"]),
            ..settled(&reserved)
        };
        assert_eq!(held(&askings.review(&elsewhere)), ["n1"]);
        askings.begin(asked('b', "id1"));
        assert_eq!(
            askings.review(&elsewhere),
            Review::default(),
            "somebody waits for one there"
        );
    }

    #[test]
    fn reservations_are_read_once_each() {
        let found = Reserved::all(&[on("b"), NetworkAttachment::default(), on("a"), on("b")]);
        let names: Vec<&str> = found.iter().map(|reserved| reserved.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
