//! How many entries each map has room for: set by the operator, made so by the loader.

use super::{
    affinity, attachment, backend, clamp, endpoint, flow, fragment, load, maglev, network, node, peer, service, socket,
};

/// The sizes that may be set; all other maps have the size that the object says. Each holds for the map of either family, but for
/// flows: their rings take memory from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Endpoints of this node.
    pub endpoints: u32,
    /// Networks that this node takes part in.
    pub networks: u32,
    /// VTEPs.
    pub nodes: u32,
    /// Remote endpoints.
    pub peers: u32,
    /// Virtual IPs.
    pub services: u32,
    /// Slots of all virtual IPs together.
    pub backends: u32,
    /// Balanced connections of IPv4. Each is two entries.
    pub flows: u32,
    /// Balanced connections of IPv6.
    pub flows6: u32,
    /// Packets under way in fragments.
    pub fragments: u32,
    /// Parts of Maglev tables.
    pub maglev_parts: u32,
    /// Backends of virtual IPs that balance by open connections.
    pub loads: u32,
    /// Clients of virtual IPs with client affinity.
    pub affinities: u32,
    /// Sockets that were balanced when they connected.
    pub sockets: u32,
    /// Whether the maps of flows take their memory from the start.
    pub preallocate_flows: bool,
}

impl Sizes {
    /// The defaults.
    pub const DEFAULT: Sizes = Sizes {
        endpoints: attachment::MAX_ENTRIES,
        networks: network::MAX_ENTRIES,
        nodes: node::MAX_ENTRIES,
        peers: peer::MAX_ENTRIES,
        services: service::MAX_ENTRIES,
        backends: backend::MAX_ENTRIES,
        flows: flow::RING_ENTRIES,
        flows6: flow::RING_ENTRIES,
        fragments: fragment::MAX_ENTRIES,
        maglev_parts: maglev::MAX_ENTRIES,
        loads: load::MAX_ENTRIES,
        affinities: affinity::MAX_ENTRIES,
        sockets: socket::MAX_SOCKETS,
        preallocate_flows: false,
    };

    /// The maps whose size can be set: name, and entries.
    pub fn maps(&self) -> [(&'static str, u32); 34] {
        [
            (attachment::NAME, self.endpoints),
            (network::NAME, self.networks),
            (clamp::NAME, self.networks),
            (endpoint::NAME, self.endpoints),
            (endpoint::NAME6, self.endpoints),
            (peer::NAME, self.peers),
            (peer::NAME6, self.peers),
            (node::NAME, self.nodes),
            (service::NAME, self.services),
            (service::NAME6, self.services),
            (backend::NAME, self.backends),
            (backend::NAME6, self.backends),
            (service::ROTATION_NAME, self.services),
            (service::ROTATION_NAME6, self.services),
            (flow::NAME, self.flows * 2),
            (flow::NAME6, self.flows6 * 2),
            (flow::RING_NAME, self.flows),
            (flow::RING_NAME6, self.flows6),
            (fragment::NAME, self.fragments),
            (fragment::NAME6, self.fragments),
            (super::answer::NAME, self.endpoints),
            (maglev::TABLES_NAME, self.services),
            (maglev::TABLES_NAME6, self.services),
            (maglev::NAME, self.maglev_parts),
            (maglev::MEMBERS_NAME, self.maglev_parts),
            (maglev::MEMBERS_NAME6, self.maglev_parts),
            (load::NAME, self.loads),
            (load::NAME6, self.loads),
            (load::WEIGHTS_NAME, self.loads),
            (load::WEIGHTS_NAME6, self.loads),
            (affinity::NAME, self.affinities),
            (affinity::NAME6, self.affinities),
            (socket::NAMESPACES_NAME, self.endpoints),
            (socket::SOCKETS_NAME, self.sockets),
        ]
    }

    /// How many entries a map has room for, if that can be set.
    pub fn of(&self, map: &str) -> Option<u32> {
        let (_, entries) = self.maps().into_iter().find(|(name, _)| *name == map)?;
        Some(entries)
    }

    /// The key of the configuration that sets the size of a map.
    pub fn setting(map: &str) -> Option<&'static str> {
        Some(match map {
            attachment::NAME | endpoint::NAME | endpoint::NAME6 | super::answer::NAME | socket::NAMESPACES_NAME => {
                "max-endpoints"
            }
            network::NAME | clamp::NAME => "max-networks",
            peer::NAME | peer::NAME6 => "max-peers",
            node::NAME => "max-nodes",
            service::NAME
            | service::NAME6
            | service::ROTATION_NAME
            | service::ROTATION_NAME6
            | maglev::TABLES_NAME
            | maglev::TABLES_NAME6 => "max-services",
            backend::NAME | backend::NAME6 => "max-backends",
            maglev::NAME | maglev::MEMBERS_NAME | maglev::MEMBERS_NAME6 => "max-maglev-parts",
            load::NAME | load::NAME6 | load::WEIGHTS_NAME | load::WEIGHTS_NAME6 => "max-loads",
            affinity::NAME | affinity::NAME6 => "max-affinities",
            socket::SOCKETS_NAME => "max-sockets",
            flow::NAME | flow::RING_NAME => "max-flows",
            flow::NAME6 | flow::RING_NAME6 => "max-flows6",
            fragment::NAME | fragment::NAME6 => "max-fragments",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_what_the_object_says() {
        let sizes = Sizes::DEFAULT;
        assert_eq!(sizes.of(flow::NAME), Some(flow::MAX_ENTRIES));
        assert_eq!(sizes.of(flow::RING_NAME6), Some(flow::RING_ENTRIES));
        assert_eq!(sizes.of(super::super::counter::NAME), None);
    }

    #[test]
    fn the_defaults_hold_a_large_cluster() {
        let sizes = Sizes::DEFAULT;
        assert!(sizes.peers >= 100_000 && sizes.services >= 10_000 && sizes.backends >= 10 * 10_000);
    }

    #[test]
    fn every_size_has_its_setting() {
        for (map, _) in Sizes::DEFAULT.maps() {
            assert!(Sizes::setting(map).is_some(), "{map}");
        }
    }
}
