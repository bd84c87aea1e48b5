//! A swarm's network and an address on it, from the managers' words to weft's (`spec/swarm-agent.md` 8.8, `spec/overlay-driver.md` 4.2).

use super::proto::{self, NetworkAttachment};
use crate::cluster::{DEFAULT_MTU, ENCAPSULATION_OVERHEAD, MIN_MTU, MTU_OPTION, Network, VNI_OPTION};
use crate::id::{NetworkId, Vni};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Its presence means that the data is encrypted, whatever its value.
const ENCRYPTED_OPTION: &str = "encrypted";

/// Why a network is not for weft: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkRefused {
    /// Its data is encrypted.
    #[error("network {0} is encrypted (--opt encrypted), which weft does not do yet: it takes networks without")]
    Encrypted(String),
    /// It has several subnets, each with a VNI of its own.
    #[error("network {name} has {subnets} IPv4 subnets: weft takes networks with one")]
    Subnets {
        /// The network.
        name: String,
        /// How many.
        subnets: usize,
    },
    /// What was told cannot be.
    #[error("network {name}: the managers told {what} {value:?}, which is not possible")]
    Told {
        /// The network.
        name: String,
        /// Which value.
        what: &'static str,
        /// What was told.
        value: String,
    },
}

/// The name of a network; its id where none is told.
pub fn name(network: &proto::Network) -> &str {
    let annotations = network.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
    annotations.map_or(&network.id, |annotations| &annotations.name)
}

/// The first address, without its prefix length; `None` while none is given.
pub fn address(attachment: &NetworkAttachment) -> Option<Ipv4Addr> {
    let text = attachment.addresses.first()?;
    text.split('/').next()?.parse().ok()
}

/// The address that the managers reserve for this node on a network, named by id or name, while it holds an attachment there.
pub fn reserved<'a>(attachments: &'a [NetworkAttachment], target: &str) -> Option<&'a NetworkAttachment> {
    attachments.iter().find(|attachment| {
        let network = attachment.network.as_ref();
        network.is_some_and(|network| network.id == target || name(network) == target)
    })
}

/// The network in weft's terms, if weft can take part in it.
pub fn network(told: &proto::Network) -> Result<Network, NetworkRefused> {
    let name = name(told);
    let refuse = |what, value: &str| NetworkRefused::Told {
        name: name.to_owned(),
        what,
        value: value.to_owned(),
    };
    let none = BTreeMap::new();
    let options = told.driver_state.as_ref().map_or(&none, |driver| &driver.options);
    if options.contains_key(ENCRYPTED_OPTION) {
        return Err(NetworkRefused::Encrypted(name.to_owned()));
    }
    let (subnet, gateway) = only_subnet(told, name)?;
    let vnis = options.get(VNI_OPTION).map_or("", String::as_str);
    // The list follows the IPv4 subnets, of which there is one.
    let vni = vnis
        .split(',')
        .next()
        .and_then(|number| Vni::new(number.trim().parse().ok()?).ok());
    let mtu = match options.get(MTU_OPTION).filter(|mtu| !mtu.is_empty()) {
        None => DEFAULT_MTU - ENCAPSULATION_OVERHEAD,
        Some(text) => {
            let underlay: Option<u32> = text.parse().ok();
            let inside = underlay.and_then(|mtu| mtu.checked_sub(ENCAPSULATION_OVERHEAD));
            inside
                .filter(|mtu| (MIN_MTU..=u32::from(u16::MAX)).contains(mtu))
                .ok_or_else(|| refuse("the MTU", text))?
        }
    };
    Ok(Network {
        id: NetworkId::new(told.id.as_str()).map_err(|_| refuse("the id", &told.id))?,
        name: name.to_owned(),
        created: created(told),
        vni: vni.ok_or_else(|| refuse("the VNIs", vnis))?,
        subnet,
        gateway,
        // Docker's managers allocate no IPv6 on overlays.
        ipv6: None,
        mtu,
        options: options.clone(),
        labels: told
            .spec
            .as_ref()
            .and_then(|spec| spec.annotations.as_ref())
            .map(|annotations| annotations.labels.clone())
            .unwrap_or_default(),
    })
}

fn only_subnet(told: &proto::Network, name: &str) -> Result<(Ipv4Net, Ipv4Addr), NetworkRefused> {
    let configs = told.ipam.as_ref().map_or(&[][..], |ipam| &ipam.configs);
    let ipv4: Vec<(Ipv4Net, &str)> = configs
        .iter()
        .filter_map(|config| Some((config.subnet.parse().ok()?, config.gateway.as_str())))
        .collect();
    let [(subnet, gateway)] = ipv4[..] else {
        return Err(NetworkRefused::Subnets {
            name: name.to_owned(),
            subnets: ipv4.len(),
        });
    };
    let first = || subnet.hosts().next().unwrap_or(subnet.addr());
    let gateway = gateway.split('/').next().and_then(|text| text.parse().ok());
    Ok((subnet, gateway.unwrap_or_else(first)))
}

fn created(told: &proto::Network) -> u64 {
    let at = told.meta.as_ref().and_then(|meta| meta.created_at).unwrap_or_default();
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(at.seconds).saturating_mul(1_000_000_000) + part(i64::from(at.nanos))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Annotations, Driver, IpamConfig, IpamOptions, Meta, NetworkSpec, Period};
    use super::*;

    fn told(options: &[(&str, &str)], subnets: &[(&str, &str)]) -> proto::Network {
        let config = |(subnet, gateway): &(&str, &str)| IpamConfig {
            subnet: (*subnet).to_owned(),
            gateway: (*gateway).to_owned(),
        };
        let option = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        proto::Network {
            id: "zmq0dp2jpuvsgv0bp0h9r1syl".to_owned(),
            meta: Some(Meta {
                created_at: Some(Period { seconds: 7, nanos: 5 }),
            }),
            spec: Some(NetworkSpec {
                annotations: Some(Annotations {
                    name: "n1".to_owned(),
                    labels: BTreeMap::from([("l".to_owned(), "v".to_owned())]),
                }),
                attachable: true,
                ingress: false,
            }),
            driver_state: Some(Driver {
                name: "overlay".to_owned(),
                options: options.iter().map(option).collect(),
            }),
            ipam: Some(IpamOptions {
                configs: subnets.iter().map(config).collect(),
            }),
        }
    }

    const SUBNET: (&str, &str) = ("10.0.1.0/24", "10.0.1.1");

    #[test]
    fn a_plain_network_is_taken_over() {
        let found = network(&told(&[(VNI_OPTION, "4097")], &[SUBNET])).unwrap();
        assert_eq!(found.name, "n1");
        assert_eq!(found.id.as_str(), "zmq0dp2jpuvsgv0bp0h9r1syl");
        assert_eq!((found.vni.get(), found.mtu, found.created), (4097, 1450, 7_000_000_005));
        assert_eq!(
            (found.subnet.to_string(), found.gateway.to_string()),
            ("10.0.1.0/24".to_owned(), "10.0.1.1".to_owned())
        );
        assert_eq!(found.labels["l"], "v");
    }

    #[test]
    fn options_say_the_mtu_and_ipv6_is_left_out() {
        let found = network(&told(
            &[(VNI_OPTION, "4097,"), (MTU_OPTION, "9000")],
            &[SUBNET, ("fd00::/64", "fd00::1")],
        ))
        .unwrap();
        assert_eq!((found.mtu, found.vni.get()), (8950, 4097));
        let without_gateway = network(&told(&[(VNI_OPTION, "5")], &[("10.0.1.0/24", "")])).unwrap();
        assert_eq!(without_gateway.gateway, Ipv4Addr::new(10, 0, 1, 1));
    }

    #[test]
    fn what_weft_cannot_carry_is_refused_in_one_line() {
        for (options, subnets, line) in [
            (
                &[(VNI_OPTION, "4097"), ("encrypted", "")][..],
                &[SUBNET][..],
                "network n1 is encrypted (--opt encrypted), which weft does not do yet: it takes networks without",
            ),
            (
                &[(VNI_OPTION, "4097,4098")],
                &[SUBNET, ("10.0.2.0/24", "10.0.2.1")],
                "network n1 has 2 IPv4 subnets: weft takes networks with one",
            ),
            (
                &[(VNI_OPTION, "0")],
                &[SUBNET],
                "network n1: the managers told the VNIs \"0\", which is not possible",
            ),
            (
                &[],
                &[SUBNET],
                "network n1: the managers told the VNIs \"\", which is not possible",
            ),
            (
                &[(VNI_OPTION, "1"), (MTU_OPTION, "60")],
                &[SUBNET],
                "network n1: the managers told the MTU \"60\", which is not possible",
            ),
        ] {
            assert_eq!(network(&told(options, subnets)).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn the_reserved_address_is_found_by_id_or_name() {
        let attachment = NetworkAttachment {
            network: Some(told(&[(VNI_OPTION, "4097")], &[SUBNET])),
            addresses: vec!["10.0.1.9/24".to_owned()],
        };
        let attachments = [NetworkAttachment::default(), attachment];
        for target in ["n1", "zmq0dp2jpuvsgv0bp0h9r1syl"] {
            let found = reserved(&attachments, target).and_then(address);
            assert_eq!(found, Some(Ipv4Addr::new(10, 0, 1, 9)), "{target}");
        }
        assert_eq!(reserved(&attachments, "n2"), None);
        assert_eq!(reserved(&attachments, ""), None);
    }

    #[test]
    fn an_address_is_read_with_or_without_prefix_length() {
        for (told, wanted) in [
            (&["10.0.1.5/24"][..], Some("10.0.1.5")),
            (&["10.0.1.5"], Some("10.0.1.5")),
            (&[], None),
            (&[""], None),
            (&["x/24"], None),
        ] {
            let attachment = NetworkAttachment {
                network: None,
                addresses: told.iter().map(|text| (*text).to_owned()).collect(),
            };
            assert_eq!(address(&attachment), wanted.map(|text| text.parse().unwrap()));
        }
    }
}
