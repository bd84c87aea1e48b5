//! How connections to a service are spread over its tasks.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use weft_dataplane::abi::service::{POLICY_LEAST_CONNECTIONS, POLICY_MAGLEV, POLICY_ROUND_ROBIN};

/// The longest client affinity: a day.
pub const MAX_AFFINITY_SECONDS: u32 = 86_400;

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// By the client's address and port.
    Maglev,
    /// Of two drawn at random, the one with fewer open connections.
    LeastConnections,
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {given:?} is not known: it should be round-robin, maglev or least-connections")]
pub struct InvalidPolicy {
    given: String,
}

impl Policy {
    /// All there are.
    pub const ALL: [Policy; 3] = [Policy::RoundRobin, Policy::Maglev, Policy::LeastConnections];

    /// Its name, as users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Policy::RoundRobin => "round-robin",
            Policy::Maglev => "maglev",
            Policy::LeastConnections => "least-connections",
        }
    }

    /// Its number, in maps and in records.
    pub const fn number(self) -> u32 {
        match self {
            Policy::RoundRobin => POLICY_ROUND_ROBIN,
            Policy::Maglev => POLICY_MAGLEV,
            Policy::LeastConnections => POLICY_LEAST_CONNECTIONS,
        }
    }

    /// The policy of a number. One of a later version is round robin here.
    pub fn from_number(number: u32) -> Self {
        let known = Policy::ALL.into_iter().find(|policy| policy.number() == number);
        known.unwrap_or_default()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let known = Policy::ALL.into_iter().find(|policy| policy.as_str() == text);
        known.ok_or_else(|| InvalidPolicy { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
            assert_eq!(Policy::from_number(policy.number()), policy);
        }
        assert_eq!(Policy::from_number(77), Policy::RoundRobin);
        assert_eq!(
            "rr".parse::<Policy>().unwrap_err().to_string(),
            "policy \"rr\" is not known: it should be round-robin, maglev or least-connections"
        );
    }
}
