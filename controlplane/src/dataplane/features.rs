//! What of the kernel the data plane uses: each feature is tried once at start, and the better way is taken if it works.
//!
//! A version says little of a kernel that has patches of its distribution's, so nothing is concluded from it where a trial can tell. An
//! operator whose kernel passes a trial and fails in earnest chooses the other way by `features` in the configuration.

use super::attach::AttachMode;
use super::environment::{kernel_is_at_least, running_kernel};
use super::raw;
use crate::netns;
use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported};
use std::fmt;
use std::io;

/// Something that a kernel has or has not, and that the data plane can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// How programs are attached: tcx links, or filters of the `clsact` queueing discipline.
    Attach,
    /// How packets are handed to containers: into the namespace at once, or through the queue of the veth.
    Handover,
    /// Who encapsulates packets to peers: the programs, or a vxlan device in external mode.
    Encap,
    /// How a packet is taken out of one of the other family: at once, or made one of the other family before.
    DecapL3,
    /// Whether checksums of IPv6 are changed with the flag for IPv6. Without it a checksum that a device computed over the whole packet is
    /// wrong afterwards, and the kernel computes it again.
    CsumIpv6,
    /// How maps are read: many entries a call, or one.
    MapReads,
    /// When connections through virtual IPs get their backend: TCP when a socket connects, or all with their first packet.
    Balance,
    /// Where VXLAN is dropped whose sender does not live where it comes from: in the uplink's driver, or with all other packets.
    EarlyDrop,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 8] = [
        Feature::Attach,
        Feature::Handover,
        Feature::Encap,
        Feature::DecapL3,
        Feature::CsumIpv6,
        Feature::MapReads,
        Feature::Balance,
        Feature::EarlyDrop,
    ];

    /// Its name in the configuration and in `weft info`.
    pub const fn name(self) -> &'static str {
        match self {
            Feature::Attach => "attach",
            Feature::Handover => "handover",
            Feature::Encap => "encap",
            Feature::DecapL3 => "decap-l3",
            Feature::CsumIpv6 => "csum-ipv6",
            Feature::MapReads => "map-reads",
            Feature::Balance => "balance",
            Feature::EarlyDrop => "early-drop",
        }
    }

    /// The better way, and the one that every kernel has.
    pub const fn choices(self) -> [&'static str; 2] {
        match self {
            Feature::Attach => [AttachMode::Tcx.as_str(), AttachMode::Clsact.as_str()],
            Feature::Handover => ["redirect_peer", "redirect"],
            Feature::Encap => ["adjust_room", "collect_md"],
            Feature::DecapL3 => ["flag", "change_proto"],
            Feature::CsumIpv6 => ["flag", "plain"],
            Feature::MapReads => ["batch", "single"],
            Feature::Balance => ["connect", "packet"],
            Feature::EarlyDrop => ["xdp", "tc"],
        }
    }

    /// Whether the better way is taken only where it is asked for: sockets that ask for a virtual IP are then seen connected to a backend
    /// by everyone but their own process, and XDP makes some drivers set up their queues anew.
    const fn is_for_those_who_ask(self) -> bool {
        matches!(self, Feature::Balance | Feature::EarlyDrop)
    }

    /// What it takes of the kernel, and with which it came.
    const fn needs(self) -> (&'static str, (u8, u8)) {
        match self {
            Feature::Attach => ("tcx links", (6, 6)),
            Feature::Handover => ("bpf_redirect_peer", (5, 10)),
            Feature::Encap => ("BPF_F_ADJ_ROOM_ENCAP_L2_ETH", (5, 13)),
            Feature::DecapL3 => ("BPF_F_ADJ_ROOM_DECAP_L3_IPV4", (6, 3)),
            Feature::CsumIpv6 => ("BPF_F_IPV6", (6, 16)),
            Feature::MapReads => ("BPF_MAP_LOOKUP_BATCH", (5, 6)),
            Feature::Balance => ("SO_NETNS_COOKIE", (5, 14)),
            Feature::EarlyDrop => ("XDP on frames in several buffers", (5, 18)),
        }
    }

    /// Tries it.
    fn works(self) -> io::Result<bool> {
        match self {
            // A kernel without tcx does not know the question.
            Feature::Attach => Ok(SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()),
            Feature::Handover => is_helper_supported(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect_peer)
                .map_err(io::Error::other),
            Feature::Encap => Ok(raw::run_classifier(&ENCAP, &FRAME)? == 0),
            Feature::DecapL3 => Ok(raw::run_classifier(&DECAP_L3, &FRAME)? == ETH_P_IP),
            Feature::CsumIpv6 => Ok(raw::run_classifier(&CSUM_IPV6, &FRAME)? == 0),
            Feature::MapReads => raw::has_batches(),
            Feature::Balance => Ok(netns::cookie_of_caller().is_ok()
                && is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_netns_cookie)
                    .map_err(io::Error::other)?),
            // Whether the uplink's driver can is seen when the program is attached.
            // The helper came with it.
            Feature::EarlyDrop => {
                is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes).map_err(io::Error::other)
            }
        }
    }
}

/// What the operator wants, whatever the kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forced([Option<bool>; Feature::ALL.len()]);

impl Forced {
    /// Nothing is forced, but this.
    pub fn only(choices: &[(&str, &str)]) -> Result<Forced, FeatureError> {
        let mut forced = Forced::default();
        for (name, choice) in choices {
            forced.force(name, choice)?;
        }
        Ok(forced)
    }

    /// Forces one feature.
    pub fn force(&mut self, name: &str, choice: &str) -> Result<(), FeatureError> {
        let feature = Feature::ALL.into_iter().find(|feature| feature.name() == name);
        let wrong = |rule| FeatureError {
            value: format!("{name}={choice}"),
            rule,
        };
        let feature = feature.ok_or_else(|| {
            let names = Feature::ALL.map(Feature::name).join(", ");
            wrong(format!("there is no such feature, but there are {names}"))
        })?;
        let [better, other] = feature.choices();
        self.0[feature as usize] = match choice {
            _ if choice == better => Some(true),
            _ if choice == other => Some(false),
            _ => return Err(wrong(format!("{better} or {other} is wanted"))),
        };
        Ok(())
    }
}

/// A feature that cannot be had so: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("features {value:?}: {rule}")]
pub struct FeatureError {
    /// Name and choice.
    pub value: String,
    /// What would be right.
    pub rule: String,
}

/// What was chosen for a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which one.
    pub feature: Feature,
    /// Whether the better way is taken.
    pub better: bool,
    /// Why.
    pub why: String,
}

impl Choice {
    /// The way that is taken.
    pub const fn way(&self) -> &'static str {
        let [better, other] = self.feature.choices();
        if self.better { better } else { other }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.feature.name(), self.way(), self.why)
    }
}

/// What was chosen for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(Vec<Choice>);

impl Features {
    /// Tries all that is not forced.
    pub(super) fn choose(forced: &Forced) -> Result<Features, FeatureError> {
        Feature::ALL
            .into_iter()
            .map(|feature| choose_here(feature, forced))
            .collect::<Result<_, _>>()
            .map(Features)
    }

    /// One after the other, in the order of [`Feature::ALL`].
    pub fn choices(&self) -> &[Choice] {
        &self.0
    }

    /// Whether the better way is taken.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.iter().any(|choice| choice.feature == feature && choice.better)
    }

    /// How programs are attached.
    pub fn attach_mode(&self) -> AttachMode {
        if self.has(Feature::Attach) {
            AttachMode::Tcx
        } else {
            AttachMode::Clsact
        }
    }
}

/// Whether the data plane will want a vxlan device that encapsulates: it must be there before.
pub fn wants_encap_device(forced: &Forced) -> Result<bool, FeatureError> {
    choose_here(Feature::Encap, forced).map(|choice| !choice.better)
}

/// [`choose`], on the running kernel.
fn choose_here(feature: Feature, forced: &Forced) -> Result<Choice, FeatureError> {
    choose(
        feature,
        forced.0[feature as usize],
        &running_kernel(),
        Feature::works,
        kernel_is_at_least,
    )
}

/// The other way is for everybody; the better one is refused where it is known not to work.
fn choose(
    feature: Feature,
    forced: Option<bool>,
    kernel: &str,
    works: impl FnOnce(Feature) -> io::Result<bool>,
    is_at_least: impl FnOnce((u8, u8)) -> bool,
) -> Result<Choice, FeatureError> {
    let chosen = |better, why| Ok(Choice { feature, better, why });
    if forced == Some(false) {
        return chosen(false, "as configured".to_owned());
    }
    if forced.is_none() && feature.is_for_those_who_ask() {
        let [other, _] = feature.choices();
        return chosen(false, format!("{other} is not asked for"));
    }
    let (needed, (major, minor)) = feature.needs();
    let (better, why) = match works(feature) {
        Ok(true) => (true, format!("kernel {kernel} has {needed}")),
        Ok(false) => (
            false,
            format!("kernel {kernel} has no {needed}, which came with {major}.{minor}"),
        ),
        // What cannot be tried is concluded.
        Err(error) => (
            is_at_least((major, minor)),
            format!("kernel {kernel}; {needed} came with {major}.{minor} and cannot be tried: {error}"),
        ),
    };
    match forced {
        Some(_) if !better => {
            let [wanted, other] = feature.choices();
            Err(FeatureError {
                value: format!("{}={wanted}", feature.name()),
                rule: format!("{why}; {other} is possible"),
            })
        }
        Some(_) => chosen(true, "as configured".to_owned()),
        None => chosen(better, why),
    }
}

/// A frame of IPv6 with IPv4 in it, and room for a checksum.
const FRAME: [u8; 14 + 40 + 40] = {
    let mut frame = [0; 14 + 40 + 40];
    (frame[12], frame[13]) = (0x86, 0xdd);
    frame[14] = 0x60;
    frame[54] = 0x45;
    frame
};

/// The EtherType of IPv4 as `__sk_buff` has it, in network order.
const ETH_P_IP: i32 = 0x0800_u16.to_be() as i32;

/// Makes room for outer headers with the flags that the programs use; gives zero, or the error.
const ENCAP: [[u8; 8]; 7] = [
    raw::instruction(raw::MOV64_IMMEDIATE, 2, 0, 0, 20 + 8 + 8 + 14),
    // BPF_ADJ_ROOM_MAC.
    raw::instruction(raw::MOV64_IMMEDIATE, 3, 0, 0, 1),
    // An inner Ethernet header, in the upper byte; BPF_F_ADJ_ROOM_FIXED_GSO, and _ENCAP_L3_IPV4, _ENCAP_L4_UDP and _ENCAP_L2_ETH.
    raw::instruction(raw::MOV64_IMMEDIATE, 4, 0, 0, 14),
    raw::instruction(raw::SHIFT_LEFT64_IMMEDIATE, 4, 0, 0, 56),
    raw::instruction(raw::OR64_IMMEDIATE, 4, 0, 0, 1 | 1 << 1 | 1 << 4 | 1 << 6),
    raw::instruction(raw::CALL, 0, 0, 0, BpfHelper::BPF_FUNC_skb_adjust_room as i32),
    raw::instruction(raw::EXIT, 0, 0, 0, 0),
];

/// Takes the IPv6 header away and gives what the kernel then thinks of the frame, or the error.
const DECAP_L3: [[u8; 8]; 8] = [
    raw::instruction(raw::MOV64_REGISTER, 6, 1, 0, 0),
    raw::instruction(raw::MOV64_IMMEDIATE, 2, 0, 0, -40),
    // BPF_ADJ_ROOM_MAC, and BPF_F_ADJ_ROOM_DECAP_L3_IPV4.
    raw::instruction(raw::MOV64_IMMEDIATE, 3, 0, 0, 1),
    raw::instruction(raw::MOV64_IMMEDIATE, 4, 0, 0, 1 << 7),
    raw::instruction(raw::CALL, 0, 0, 0, BpfHelper::BPF_FUNC_skb_adjust_room as i32),
    raw::instruction(raw::JUMP_IF_NOT_IMMEDIATE, 0, 0, 1, 0),
    // `__sk_buff.protocol`.
    raw::instruction(raw::LOAD_WORD, 0, 6, 16, 0),
    raw::instruction(raw::EXIT, 0, 0, 0, 0),
];

/// Changes a checksum of IPv6 by a difference; gives zero, or the error.
const CSUM_IPV6: [[u8; 8]; 6] = [
    raw::instruction(raw::MOV64_IMMEDIATE, 2, 0, 0, 14 + 40 + 16),
    raw::instruction(raw::MOV64_IMMEDIATE, 3, 0, 0, 0),
    raw::instruction(raw::MOV64_IMMEDIATE, 4, 0, 0, 1),
    // BPF_F_PSEUDO_HDR and BPF_F_IPV6.
    raw::instruction(raw::MOV64_IMMEDIATE, 5, 0, 0, 1 << 4 | 1 << 7),
    raw::instruction(raw::CALL, 0, 0, 0, BpfHelper::BPF_FUNC_l4_csum_replace as i32),
    raw::instruction(raw::EXIT, 0, 0, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(feature: Feature, forced: Option<bool>, works: io::Result<bool>) -> Result<String, String> {
        let at_least = |needed| (6, 1) >= needed;
        choose(feature, forced, "6.1.0-9", |_| works, at_least)
            .map(|choice| choice.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_choice_has_a_reason() {
        let cases = [
            (
                Feature::Attach,
                None,
                Ok(true),
                "attach: tcx (kernel 6.1.0-9 has tcx links)",
            ),
            (
                Feature::Attach,
                None,
                Ok(false),
                "attach: clsact (kernel 6.1.0-9 has no tcx links, which came with 6.6)",
            ),
            (
                Feature::Handover,
                Some(false),
                Ok(true),
                "handover: redirect (as configured)",
            ),
            (
                Feature::Handover,
                Some(true),
                Ok(true),
                "handover: redirect_peer (as configured)",
            ),
            (
                Feature::DecapL3,
                None,
                Err(io::ErrorKind::PermissionDenied.into()),
                "decap-l3: change_proto (kernel 6.1.0-9; BPF_F_ADJ_ROOM_DECAP_L3_IPV4 came with 6.3 and cannot be tried: permission denied)",
            ),
            (
                Feature::Encap,
                None,
                Ok(false),
                "encap: collect_md (kernel 6.1.0-9 has no BPF_F_ADJ_ROOM_ENCAP_L2_ETH, which came with 5.13)",
            ),
            (
                Feature::MapReads,
                None,
                Err(io::ErrorKind::PermissionDenied.into()),
                "map-reads: batch (kernel 6.1.0-9; BPF_MAP_LOOKUP_BATCH came with 5.6 and cannot be tried: permission denied)",
            ),
            (
                Feature::Balance,
                None,
                Ok(true),
                "balance: packet (connect is not asked for)",
            ),
            (
                Feature::Balance,
                Some(true),
                Ok(true),
                "balance: connect (as configured)",
            ),
        ];
        for (feature, forced, works, expected) in cases {
            assert_eq!(chosen(feature, forced, works).as_deref(), Ok(expected));
        }
        assert_eq!(
            chosen(Feature::CsumIpv6, Some(true), Ok(false)).unwrap_err(),
            "features \"csum-ipv6=flag\": kernel 6.1.0-9 has no BPF_F_IPV6, which came with 6.16; plain is possible"
        );
    }

    #[test]
    fn what_is_forced_is_named_and_known() {
        let forced = Forced::only(&[("attach", "clsact"), ("map-reads", "batch")]).unwrap();
        assert_eq!(forced.0, [Some(false), None, None, None, None, Some(true), None, None]);
        let refusal = |name, choice| Forced::only(&[(name, choice)]).unwrap_err().to_string();
        assert_eq!(
            refusal("attach", "xdp"),
            "features \"attach=xdp\": tcx or clsact is wanted"
        );
        assert_eq!(
            refusal("tcx", "on"),
            "features \"tcx=on\": there is no such feature, but there are attach, handover, encap, decap-l3, csum-ipv6, map-reads, balance, early-drop"
        );
    }

    #[test]
    fn names_and_choices_are_unique() {
        let mut names: Vec<_> = Feature::ALL.map(Feature::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Feature::ALL.len());
        for (index, feature) in Feature::ALL.into_iter().enumerate() {
            assert_eq!(feature as usize, index);
            let [better, other] = feature.choices();
            assert_ne!(better, other);
        }
    }
}
