//! A Docker swarm's join token: which authority to trust, and the secret that lets a node in (`spec/swarm-agent.md` 8.2).

use crate::cluster::token::{hex, shown};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "SWMTKN";
const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

/// A token that a manager's `docker swarm join-token worker` prints.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the root certificates, PEM, as the managers hand them out.
    digest: [u8; 32],
    /// The managers compare all of it, byte by byte.
    text: String,
}

/// Why a token cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of a Docker swarm.
    #[error(
        "join token {shown:?} is malformed: SWMTKN-1-, 50 and 25 characters of 0-9 and a-z with '-' between are wanted, as `docker swarm join-token worker` prints it"
    )]
    Malformed {
        /// The secret is at the end: only the beginning is shown, for errors end up in logs.
        shown: String,
    },
    /// It is one of weft's own clusters.
    #[error("join token {shown:?} is of a cluster of weft's own: `weft cluster join` joins it")]
    Cluster {
        /// Its beginning.
        shown: String,
    },
    /// The swarm mandates validated cryptography.
    #[error("join token {shown:?} is of a swarm that mandates FIPS 140 cryptography, which weft does not have")]
    Fips {
        /// Its beginning.
        shown: String,
    },
}

impl JoinToken {
    /// The token as the managers want it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether these root certificates are the swarm's that the token is for.
    pub fn matches(&self, root_pem: &[u8]) -> bool {
        Sha256::digest(root_pem).as_slice() == self.digest
    }

    /// The digest in hex, which may be shown.
    pub fn digest(&self) -> String {
        hex(&self.digest)
    }
}

/// The secret is no reader's business.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.digest())
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let malformed = || TokenError::Malformed { shown: shown(text) };
        let parts: Vec<&str> = text.split('-').collect();
        let (fips, digest, secret) = match parts[..] {
            [PREFIX, "1", digest, secret] => (false, digest, secret),
            [PREFIX, "2", fips @ ("0" | "1"), digest, secret] => (fips == "1", digest, secret),
            ["WFTKN", ..] => return Err(TokenError::Cluster { shown: shown(text) }),
            _ => return Err(malformed()),
        };
        let is_secret = secret.len() == SECRET_DIGITS && secret.bytes().all(is_digit);
        if digest.len() != DIGEST_DIGITS || !is_secret {
            return Err(malformed());
        }
        let digest = base36(digest).ok_or_else(malformed)?;
        if fips {
            return Err(TokenError::Fips { shown: shown(text) });
        }
        Ok(JoinToken {
            digest,
            text: text.to_owned(),
        })
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || byte.is_ascii_lowercase()
}

/// A number of 256 bits, big-endian; `None` when it is larger, or a digit is none.
fn base36(digits: &str) -> Option<[u8; 32]> {
    let mut number = [0_u8; 32];
    for digit in digits.bytes() {
        let mut carry = match digit {
            b'0'..=b'9' => u16::from(digit - b'0'),
            b'a'..=b'z' => u16::from(digit - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let [high, low] = (u16::from(*byte) * 36 + carry).to_be_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `spec/swarm-agent.md` 8.2.
    const TOKEN: &str = "SWMTKN-1-48mxqxisrwuxr29mmf5hfvn3esai50ajdv341mhs8wkx9uqbz5-bfz493hext5p2tt9l3rkvsgt3";

    fn error(text: &str) -> String {
        text.parse::<JoinToken>().unwrap_err().to_string()
    }

    #[test]
    fn the_digest_is_read() {
        let token: JoinToken = TOKEN.parse().unwrap();
        assert_eq!(
            token.digest(),
            "aa1d50ac9bbeb7a0fbcfab1094247300c39675a6b173356a7406773679c17121"
        );
        assert_eq!(token.as_str(), TOKEN);
        assert!(!token.matches(b"another certificate"));
        assert!(!format!("{token:?}").contains("bfz493"));
    }

    #[test]
    fn a_digest_is_of_exactly_the_bytes() {
        let pem = b"-----BEGIN CERTIFICATE-----\n";
        let token = JoinToken {
            digest: Sha256::digest(pem).into(),
            text: String::new(),
        };
        assert!(token.matches(pem));
        assert!(!token.matches(&pem[..pem.len() - 1]), "the last newline counts");
    }

    #[test]
    fn the_second_version_tells_of_fips() {
        let rest = TOKEN.strip_prefix("SWMTKN-1-").unwrap();
        let token: JoinToken = format!("SWMTKN-2-0-{rest}").parse().unwrap();
        assert_eq!(token.digest()[..8], *"aa1d50ac");
        assert!(error(&format!("SWMTKN-2-1-{rest}")).contains("mandates FIPS 140"));
    }

    #[test]
    fn a_token_of_a_cluster_is_told_as_such() {
        let line = error(&format!("WFTKN-1-{}-{}", "0".repeat(64), "1".repeat(32)));
        assert_eq!(
            line,
            "join token \"WFTKN-1-00000000...\" is of a cluster of weft's own: `weft cluster join` joins it"
        );
    }

    #[test]
    fn what_is_no_token_is_refused_without_showing_it() {
        let (digest, secret) = (
            "48mxqxisrwuxr29mmf5hfvn3esai50ajdv341mhs8wkx9uqbz5",
            "bfz493hext5p2tt9l3rkvsgt3",
        );
        let largest = "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof";
        assert_eq!(base36(largest), Some([0xff; 32]));
        for text in [
            String::new(),
            TOKEN.to_uppercase(),
            format!("SWMTKN-1-{}-{secret}", &digest[1..]),
            format!("SWMTKN-1-0{digest}-{secret}"),
            format!("SWMTKN-1-{digest}-{}", &secret[1..]),
            format!("SWMTKN-1-{digest}-{secret}-"),
            format!("SWMTKN-3-{digest}-{secret}"),
            format!("SWMTKN-2-{digest}-{secret}"),
            format!("SWMTKN-1-{}g-{secret}", &largest[..49]),
            format!("SWMTKN-1-{}-{secret}", "z".repeat(50)),
            format!("SWMTKN-1-{digest}-{}Z", &secret[1..]),
            format!("SWMTKN-1-{digest}-{}", "\u{e4}".repeat(25)),
        ] {
            let line = error(&text);
            assert!(line.contains("is malformed: SWMTKN-1-, 50 and 25 characters"), "{line}");
            assert!(!line.contains(secret) && !line.contains('\n'), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_a_line_without_its_end(
            digest in "[0-9a-z]{48,52}",
            secret in "[0-9a-z]{24,26}",
            version in "[0-9]{0,2}(-[01])?",
            text in "\\PC{0,200}",
        ) {
            for text in [format!("SWMTKN-{version}-{digest}-{secret}"), text] {
                match text.parse::<JoinToken>() {
                    Ok(token) => prop_assert_eq!(token.as_str(), text),
                    Err(refused) => {
                        let line = refused.to_string();
                        prop_assert!(!line.contains(&secret) && !line.contains('\n'), "{}", line);
                    }
                }
            }
        }
    }
}
