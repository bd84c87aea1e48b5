//! The driver options of a network (`spec/overlay-driver.md` 4.2).

use super::Network;
use super::refusal::Refusal;
use crate::id::Vni;
use std::collections::BTreeMap;

/// Driver option: MTU of the underlay, bytes, decimal.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// Driver option: the VNI, decimal. Docker calls it a list, one for each subnet; a network of weft's has one subnet.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Driver option: whether TCP connections are told at their start what fits (MSS clamping), `true` or `false`. Docker has no such option.
pub(super) const CLAMP_MSS_OPTION: &str = "com.docker.network.driver.clamp_mss";

/// Outer Ethernet-less cost of VXLAN, bytes: inner Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (`spec/overlay-driver.md` 4.5).
pub const ENCAPSULATION_OVERHEAD: u32 = 50;

/// The same where nodes reach each other by IPv6, whose header has 40 bytes.
pub(super) const ENCAPSULATION_OVERHEAD_IPV6: u32 = 70;

/// MTU of the underlay if none is given, bytes.
pub const DEFAULT_MTU: u32 = 1500;

/// The least MTU inside an overlay, bytes: what every IPv4 link must carry (RFC 791 section 3.2).
pub const MIN_MTU: u32 = 68;

/// The same of every IPv6 link (RFC 8200 section 5); Linux gives an interface with less no IPv6.
const MIN_IPV6_MTU: u32 = 1280;

/// The longest IPv4 packet, bytes (RFC 791 section 3.1).
const MAX_UNDERLAY_MTU: u32 = 65_535;

/// What the options say.
pub(super) struct DriverOptions {
    /// MTU inside the overlay, bytes.
    pub(super) mtu: u32,
    /// A certain VNI.
    pub(super) vni: Option<Vni>,
}

/// `overhead` is what VXLAN takes of each packet of the underlay.
pub(super) fn parse(options: &BTreeMap<String, String>, overhead: u32) -> Result<DriverOptions, Refusal> {
    let mut parsed = DriverOptions {
        mtu: DEFAULT_MTU - overhead,
        vni: None,
    };
    for (key, value) in options {
        match key.as_str() {
            MTU_OPTION => parsed.mtu = mtu(value, overhead)?,
            CLAMP_MSS_OPTION => drop(clamp_mss(value)?),
            VNI_OPTION => parsed.vni = Some(vni(value)?),
            "encrypted" => {
                return Err(Refusal::invalid(
                    "driver option \"encrypted\" is not supported yet, and the network would be plain text: create it without",
                ));
            }
            _ => {
                return Err(Refusal::invalid(format!(
                    "unknown driver option {key:?}: it should be {MTU_OPTION}, {CLAMP_MSS_OPTION} or {VNI_OPTION}"
                )));
            }
        }
    }
    Ok(parsed)
}

impl Network {
    /// Whether its TCP connections are told at their start what fits.
    pub fn clamps_mss(&self) -> bool {
        let value = self.options.get(CLAMP_MSS_OPTION);
        value.is_some_and(|value| clamp_mss(value) == Ok(true))
    }
}

fn clamp_mss(value: &str) -> Result<bool, Refusal> {
    value.parse().map_err(|_| {
        Refusal::invalid(format!(
            "invalid value {value:?} of {CLAMP_MSS_OPTION}: it should be true or false"
        ))
    })
}

fn mtu(value: &str, overhead: u32) -> Result<u32, Refusal> {
    let least = MIN_MTU + overhead;
    let underlay = value
        .parse()
        .ok()
        .filter(|mtu| (least..=MAX_UNDERLAY_MTU).contains(mtu));
    underlay.map(|mtu| mtu - overhead).ok_or_else(|| {
        Refusal::invalid(format!(
            "invalid MTU value: {value:?}: {MTU_OPTION} should be the underlay's MTU, {least} to {MAX_UNDERLAY_MTU} bytes, of \
             which VXLAN takes {overhead}"
        ))
    })
}

pub(super) fn check_mtu_for_ipv6(mtu: u32, overhead: u32) -> Result<(), Refusal> {
    if mtu >= MIN_IPV6_MTU {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "invalid MTU value: \"{}\": {MTU_OPTION} of a network with IPv6 should be {} or more bytes, of which VXLAN takes \
         {overhead}",
        mtu + overhead,
        MIN_IPV6_MTU + overhead
    )))
}

fn vni(value: &str) -> Result<Vni, Refusal> {
    let number = value.parse().ok().and_then(|number| Vni::new(number).ok());
    number.ok_or_else(|| {
        Refusal::invalid(format!(
            "invalid vxlan id value {value:?} passed: {VNI_OPTION} should be one number from 1 to {}",
            Vni::MAX
        ))
    })
}
