//! The keys that set sizes and time-outs: numbers with bounds, alike in the file and among the flags.

use super::ConfigError;
use serde::Deserialize;
use weft_dataplane::abi::Sizes;
use weft_dataplane::abi::flow::Timeouts;

/// Each must fit into memory that a host has to spare, and the time-outs into what the programs count in.
const SIZE: (u64, u64) = (1, 4_194_304);
const SMALL_SIZE: (u64, u64) = (1, 65_536);
const SECONDS: (u64, u64) = (1, 365 * 24 * 3600);

struct Combined {
    size: Sizes,
    timeout: Timeouts,
}

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $field:ident, $key:literal, $unit:literal, $bounds:ident, $target:ident.$of:ident;)+) => {
        /// Sizes and time-outs as they are given.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
        #[serde(rename_all = "kebab-case")]
        pub struct Tuning {
            $(
                $(#[doc = $doc])+
                #[arg(long, value_name = $unit)]
                pub $field: Option<u64>,
            )+
            /// Take the memory of flows at the start instead of as they come: 8 % less when the maps are full [default: false]
            #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
            pub preallocate_flows: Option<bool>,
        }

        impl Tuning {
            /// The keys.
            pub(super) const KEYS: &'static [&'static str] = &[$($key,)+ "preallocate-flows"];

            /// What is wanted of a key's value.
            pub(super) fn wanted(key: &str) -> String {
                match key {
                    $($key => range($bounds),)+
                    _ => "true or false is wanted".to_owned(),
                }
            }

            /// The keys that are given here and there.
            pub(super) fn also_in(&self, other: &Tuning) -> impl Iterator<Item = &'static str> + use<> {
                [
                    $(($key, self.$field.is_some() && other.$field.is_some()),)+
                    ("preallocate-flows", self.preallocate_flows.is_some() && other.preallocate_flows.is_some()),
                ]
                .into_iter()
                .filter_map(|(key, twice)| twice.then_some(key))
            }

            /// What is given in either, else the defaults, checked. The time-outs are in seconds.
            pub(super) fn combine(&self, other: &Tuning) -> Result<(Sizes, Timeouts), ConfigError> {
                let mut combined = Combined {
                    size: Sizes::DEFAULT,
                    timeout: Timeouts::DEFAULT_SECONDS,
                };
                $(
                    if let Some(value) = self.$field.or(other.$field) {
                        combined.$target.$of = checked($key, value, $bounds)?;
                    }
                )+
                combined.size.preallocate_flows = self.preallocate_flows.or(other.preallocate_flows).unwrap_or(false);
                Ok((combined.size, combined.timeout))
            }
        }
    };
}

numbers! {
    /// Endpoints on this node at most [default: 4096]
    max_endpoints, "max-endpoints", "N", SMALL_SIZE, size.endpoints;
    /// Networks that this node takes part in at most [default: 4096]
    max_networks, "max-networks", "N", SMALL_SIZE, size.networks;
    /// Other nodes at most [default: 8192]
    max_nodes, "max-nodes", "N", SMALL_SIZE, size.nodes;
    /// Endpoints on other nodes at most, for each of IPv4 and IPv6 as all that follow [default: 131072]
    max_peers, "max-peers", "N", SIZE, size.peers;
    /// Virtual IPs at most [default: 16384]
    max_services, "max-services", "N", SIZE, size.services;
    /// Backends of all virtual IPs together at most [default: 131072]
    max_backends, "max-backends", "N", SIZE, size.backends;
    /// Balanced IPv4 connections at the same time at most; 16 bytes each at once, 192 more when used [default: 262144]
    max_flows, "max-flows", "N", SIZE, size.flows;
    /// Balanced IPv6 connections at the same time at most; 40 bytes each at once, 304 more when used [default: 262144]
    max_flows6, "max-flows6", "N", SIZE, size.flows6;
    /// Packets under way in fragments to or from virtual IPs at most [default: 4096]
    max_fragments, "max-fragments", "N", SMALL_SIZE, size.fragments;
    /// Parts of Maglev tables at most; a service of up to 10 backends takes 64, of up to 40 takes 256 [default: 32768]
    max_maglev_parts, "max-maglev-parts", "N", SIZE, size.maglev_parts;
    /// Backends of services that balance by open connections at most [default: 16384]
    max_loads, "max-loads", "N", SIZE, size.loads;
    /// Clients of services with client affinity that are remembered at most [default: 8192]
    max_affinities, "max-affinities", "N", SIZE, size.affinities;
    /// Connections that were balanced when their socket connected at the same time at most; those beyond are balanced packet by packet [default: 65536]
    max_sockets, "max-sockets", "N", SIZE, size.sockets;
    /// A balanced TCP connection is forgotten after so long without a packet, while it is not established [default: 120]
    tcp_opening_timeout, "tcp-opening-timeout", "SECONDS", SECONDS, timeout.tcp_opening;
    /// The same once it is established [default: 432000]
    tcp_established_timeout, "tcp-established-timeout", "SECONDS", SECONDS, timeout.tcp_established;
    /// The same once a side has finished [default: 120]
    tcp_finished_timeout, "tcp-finished-timeout", "SECONDS", SECONDS, timeout.tcp_finished;
    /// The same once it is reset [default: 10]
    tcp_reset_timeout, "tcp-reset-timeout", "SECONDS", SECONDS, timeout.tcp_reset;
    /// The same for UDP that has no answer yet [default: 30]
    udp_timeout, "udp-timeout", "SECONDS", SECONDS, timeout.udp;
    /// The same for UDP that was answered [default: 180]
    udp_answered_timeout, "udp-answered-timeout", "SECONDS", SECONDS, timeout.udp_answered;
}

fn range((least, most): (u64, u64)) -> String {
    format!("a number from {least} to {most} is wanted")
}

fn checked(key: &'static str, value: u64, (least, most): (u64, u64)) -> Result<u32, ConfigError> {
    match u32::try_from(value) {
        Ok(number) if (least..=most).contains(&value) => Ok(number),
        _ => Err(ConfigError::Value {
            key,
            value: value.to_string(),
            rule: range((least, most)),
        }),
    }
}
