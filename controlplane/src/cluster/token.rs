//! The join token: which authority to trust, and the secret that lets a node in.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "WFTKN-1-";
const DIGEST_HEX: usize = 64;
const SECRET_HEX: usize = 32;

/// `WFTKN-1-<SHA-256 of the authority's certificate>-<secret>`, both in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate, DER.
    pub(super) digest: [u8; 32],
    /// What the manager compares.
    pub(super) secret: String,
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "join token {shown:?} is malformed: {PREFIX}, 64 hex digits, '-' and 32 hex digits are wanted, as `weft cluster join-token` prints it"
)]
pub struct TokenError {
    /// The secret is at the end: only the beginning is shown, for errors end up in logs.
    shown: String,
}

impl JoinToken {
    /// The token for an authority.
    pub fn new(certificate_der: &[u8], secret: &str) -> JoinToken {
        JoinToken {
            digest: digest(certificate_der),
            secret: secret.to_owned(),
        }
    }

    /// A fresh secret of 128 bits.
    pub fn new_secret() -> Result<String, getrandom::Error> {
        let mut bytes = [0; SECRET_HEX / 2];
        getrandom::fill(&mut bytes)?;
        Ok(hex(&bytes))
    }
}

pub(super) fn digest(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", hex(&self.digest), self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let malformed = || TokenError { shown: shown(text) };
        let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
        let (digest_hex, secret) = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .ok_or_else(malformed)?;
        if digest_hex.len() != DIGEST_HEX || secret.len() != SECRET_HEX || !is_hex(digest_hex) || !is_hex(secret) {
            return Err(malformed());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digest_hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        Ok(JoinToken {
            digest,
            secret: secret.to_owned(),
        })
    }
}

/// The beginning of a token, for errors: they end up in logs, and its end is secret.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN: usize = PREFIX.len() + 8;
    let beginning: String = text.chars().take(SHOWN).collect();
    if beginning.len() < text.len() {
        format!("{beginning}...")
    } else {
        beginning
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_and_any_other_text_is_refused_in_a_line(
            der in prop::collection::vec(any::<u8>(), 0..40),
            secret in "[0-9a-f]{32}",
            place in any::<prop::sample::Index>(),
            other in any::<char>(),
            text in "\\PC{0,200}",
        ) {
            let token = JoinToken::new(&der, &secret);
            let printed = token.to_string();
            prop_assert_eq!(printed.parse::<JoinToken>(), Ok(token));
            let place = place.index(printed.len());
            let changed = format!("{}{other}{}", &printed[..place], &printed[place + 1..]);
            for text in [changed, printed[..place].to_owned(), text] {
                match text.parse::<JoinToken>() {
                    Ok(read) => prop_assert_eq!(read.to_string().to_lowercase(), text.to_lowercase()),
                    Err(refused) => {
                        let line = refused.to_string();
                        prop_assert!(!line.contains(&secret) && !line.contains('\n'), "{}", line);
                    }
                }
            }
        }
    }
}
