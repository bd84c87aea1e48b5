//! What is used of the kernel: what trials say of this one, and what an operator can force.
#![allow(clippy::unwrap_used)]

use aya::util::KernelVersion;
use weft::dataplane::{Dataplane, Feature, Forced, Hook};
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::{Network, flow};
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, Action, BOB, CAROL, GATEWAY, Lab, Loaded, VIP, VNI, config};

/// The kernels that are tested have no patches that would change it: a trial finds what its version says.
#[test]
fn trials_find_what_the_version_says() {
    let kernel = KernelVersion::current().unwrap();
    let loaded = Loaded::new(&config());
    let came_with = [(6, 6), (5, 10), (6, 3), (6, 16), (5, 6)];
    for (feature, (major, minor)) in Feature::ALL.into_iter().zip(came_with) {
        let told: Vec<String> = loaded.features().choices().iter().map(ToString::to_string).collect();
        let expected = kernel >= KernelVersion::new(major, minor, 0);
        assert_eq!(loaded.features().has(feature), expected, "{}: {told:?}", feature.name());
        let told = &told[feature as usize];
        let word = if expected { " has " } else { " has no " };
        assert!(
            told.starts_with(feature.name()) && told.contains(word) && !told.contains("cannot be tried"),
            "{told}"
        );
    }
}

#[test]
fn what_is_forced_is_done_or_refused_before_anything_is_touched() {
    for feature in Feature::ALL {
        let by_trial = Loaded::new(&config()).features().has(feature);
        for (better, way) in [true, false].into_iter().zip(feature.choices()) {
            let mut config = config();
            config.features = Forced::only(&[(feature.name(), way)]).unwrap();
            match Dataplane::load(&config) {
                Ok(dataplane) => {
                    let choice = dataplane.features().choices()[feature as usize].clone();
                    assert_eq!((choice.way(), choice.why.as_str()), (way, "as configured"));
                    dataplane.remove().unwrap();
                }
                Err(error) => {
                    assert!(better && !by_trial, "{way}: {error}");
                    let [_, other] = feature.choices();
                    let error = error.to_string();
                    assert!(
                        error.starts_with(&format!("features \"{}={way}\": ", feature.name())),
                        "{error}"
                    );
                    assert!(error.ends_with(&format!("; {other} is possible")), "{error}");
                }
            }
            assert!(!config.pin_directory.exists());
        }
    }
}

#[test]
fn the_handover_is_what_was_forced() {
    for way in Feature::Handover.choices() {
        let mut config = config();
        config.features = Forced::only(&[("handover", way)]).unwrap();
        let lab = Lab::with(&config);
        let outcome = lab.from_alice(&Datagram::new(ALICE, BOB, Payload::Echo(1)).bytes());
        assert_eq!(outcome.action, Action::Redirect, "{way}");
        let outcome = lab.from_alice(&Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes());
        assert_eq!(outcome.action, Action::Redirect, "{way}");
    }
}

#[test]
fn maps_are_read_alike_one_by_one() {
    let read = |way: &str| {
        let mut config = config();
        config.features = Forced::only(&[("map-reads", way)]).unwrap();
        let mut lab = Lab::with(&config);
        for port in 0..100 {
            lab.from_alice(&Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Udp(port, 2, vec![])).bytes());
        }
        // A walk over the flows, of which none is over.
        for _ in 0..100 {
            lab.dataplane.sweep_flows().unwrap();
        }
        let summaries = lab.dataplane.summaries().unwrap();
        let entries = |name: &str| summaries.iter().find(|summary| summary.name == name).unwrap().entries;
        assert_eq!((entries(flow::NAME), entries("peers")), (200, 3), "{way}");
        summaries
            .into_iter()
            .map(|summary| (summary.name, summary.entries))
            .collect::<Vec<_>>()
    };
    assert_eq!(read("batch"), read("single"));
}

/// Maps of another size are filled from those that were there, whichever way they are read.
#[test]
fn maps_are_copied_alike_one_by_one() {
    for way in Feature::MapReads.choices() {
        let mut config = config();
        config.features = Forced::only(&[("map-reads", way)]).unwrap();
        let mut first = Loaded::new(&config);
        let steps: Vec<Step> = (0..50)
            .map(|number| {
                Step::Put(Entry::Network(
                    VNI + number,
                    Network {
                        gateway: GATEWAY.1,
                        gateway_mac: GATEWAY.0,
                        prefix_len: 24,
                        padding: 0,
                    },
                ))
            })
            .collect();
        first.apply(&steps).unwrap();
        let present = first.present().unwrap();
        first.leave();
        config.sizes.networks /= 2;
        let second = Loaded::new(&config);
        assert_eq!(second.present().unwrap(), present, "{way}");
        assert_eq!(second.attached().unwrap(), Vec::<(Hook, u32)>::new());
    }
}
