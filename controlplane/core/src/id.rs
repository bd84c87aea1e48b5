//! Identifiers: checked once, and impossible to mix up.

mod text;

use serde::{Deserialize, Serialize};
use std::fmt;
use text::Text;

/// Why a text or number is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    /// Which kind of identifier.
    pub what: &'static str,
    /// What was given.
    pub value: String,
    /// What would be right.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Text);

        impl $name {
            /// Checks and takes the text.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let valid: fn(&str) -> bool = $check;
                if valid(&text) {
                    Ok($name(Text::from(text)))
                } else {
                    Err(InvalidId { what: $what, value: text, rule: $rule })
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                $name::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }
    };
}

fn printable_without_slash(text: &str) -> bool {
    !text.contains('/') && !text.chars().any(char::is_control)
}

fn lower_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

text_id! {
    /// A node in the gossip: 12 lower-case hex digits when weft or Docker made it, fresh at every start (`spec/networkdb.md` 3.1).
    /// Other members may use any text without a slash.
    NodeId, "node id", "1 to 128 characters without '/'", |t| !t.is_empty() && t.len() <= 128 && printable_without_slash(t)
}

text_id! {
    /// A network in the gossip: 25 characters `0-9a-z` when weft or Docker made it. The gossip and the diagnostic API accept
    /// any text without a slash, even the empty one (`spec/diag-api.md` 1.5).
    NetworkId, "network id", "at most 128 characters without '/'", |t| t.len() <= 128 && printable_without_slash(t)
}

text_id! {
    /// An endpoint: 64 lower-case hex digits.
    EndpointId, "endpoint id", "64 lower-case hex digits", |t| lower_hex(t, 64)
}

text_id! {
    /// A service: 25 characters `0-9a-z`.
    ServiceId, "service id", "25 characters of 0-9 and a-z",
    |t| t.len() == 25 && t.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// A VXLAN network identifier: 24 bits, not zero (RFC 7348 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier that fits into 24 bits.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Checks and takes the number.
    pub fn new(number: u32) -> Result<Self, InvalidId> {
        if (1..=Self::MAX).contains(&number) {
            Ok(Vni(number))
        } else {
            Err(InvalidId {
                what: "VNI",
                value: number.to_string(),
                rule: "a number from 1 to 16777215",
            })
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = InvalidId;
    fn try_from(number: u32) -> Result<Self, InvalidId> {
        Vni::new(number)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A MAC address of one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Docker's convention: `02:42` and the four bytes of the IPv4 address (`spec/overlay-driver.md` 4.6).
    pub const fn from_ipv4(address: std::net::Ipv4Addr) -> Self {
        MacAddress(weft_dataplane::abi::front::mac_of(address.octets()))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for MacAddress {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            what: "MAC address",
            value: text.to_owned(),
            rule: "six hex bytes joined by ':', as 02:42:0a:00:01:03",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(MacAddress(bytes))
        }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}
