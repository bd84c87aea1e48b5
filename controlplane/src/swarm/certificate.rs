//! This node's certificate: asking for it, checking it, and what it says (`spec/swarm-agent.md` 8.4, 8.12).

use super::tls::{TlsError, certificates, provider};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use weft_core::swarm::renewal::Validity;
use x509_parser::certificate::X509Certificate;

/// In every worker's certificate, as its unit and as a name.
const WORKER: &str = "swarm-worker";
const MANAGER: &str = "swarm-manager";

/// Swarms that mandate FIPS 140 say so at the beginning of their id.
const FIPS: &str = "FIPS.";

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// It cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key or a request could not be made.
    #[error("signing request: {0}")]
    Request(#[from] rcgen::Error),
    /// It is not what it should be.
    #[error("certificate of this node: {0}")]
    Wrong(String),
    /// A manager's, which this program must not hold.
    #[error("the certificate is a manager's: this node can only be a worker")]
    Manager {
        /// The node that was made.
        node_id: String,
    },
    /// The root does not vouch for it.
    #[error("certificate of this node: no trusted certificate of the swarm vouches for it: {0}")]
    Untrusted(rustls::Error),
}

/// A private key and the request to sign its public half.
pub(super) struct Request {
    pub(super) key_pem: String,
    pub(super) csr_pem: String,
}

/// What a checked certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The node's id.
    pub node_id: String,
    /// The swarm's id.
    pub cluster_id: String,
    /// How long it is valid.
    pub validity: Validity,
    /// The issuer's subject, DER as it stands in the certificate.
    pub issuer_subject: Vec<u8>,
    /// The issuer's public key, DER as it stands in the issuer's certificate.
    pub issuer_public_key: Vec<u8>,
    /// Whether the issuer is a trusted root itself, not vouched for by one.
    pub issuer_is_trusted: bool,
}

/// A fresh key. Managers take only the public key from the request; they cannot verify Ed25519.
pub(super) fn request() -> Result<Request, CertificateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(Request {
        csr_pem: params.serialize_request(&key)?.pem()?,
        key_pem: key.serialize_pem(),
    })
}

/// Checks that the chain is this key's, a worker's, and that one of the roots vouches for it, validity aside.
pub(super) fn check(chain_pem: &str, key_pem: &str, root_pem: &str) -> Result<Facts, CertificateError> {
    let chain = certificates("certificate of this node", chain_pem)?;
    let leaf = parse(&chain[0])?;
    let wrong = |reason: &str| CertificateError::Wrong(reason.to_owned());
    if leaf.public_key().raw != KeyPair::from_pem(key_pem)?.subject_public_key_info() {
        return Err(wrong("it is not of this node's key"));
    }
    let subject = leaf.subject();
    let text = |name: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
        name.and_then(|value| value.as_str().ok()).map(str::to_owned)
    };
    let node_id = text(subject.iter_common_name().next()).ok_or_else(|| wrong("it names no node"))?;
    let cluster_id = text(subject.iter_organization().next()).ok_or_else(|| wrong("it names no swarm"))?;
    match text(subject.iter_organizational_unit().next()).as_deref() {
        Some(WORKER) => {}
        Some(MANAGER) => return Err(CertificateError::Manager { node_id }),
        unit => return Err(CertificateError::Wrong(format!("its unit is {unit:?}, not {WORKER}"))),
    }
    if cluster_id.starts_with(FIPS) {
        return Err(wrong(
            "the swarm mandates FIPS 140 cryptography, which weft does not have",
        ));
    }
    let validity = Validity {
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
    };
    let roots = certificates("root certificate of the swarm", root_pem)?;
    let root = vouching(&chain, &roots, validity)?;
    // With an intermediate certificate, that one is of the issuer's key.
    let issuer = parse(chain.get(1).unwrap_or(root))?;
    let issuer_public_key = issuer.public_key().raw.to_vec();
    let mut issuer_is_trusted = false;
    for root in &roots {
        issuer_is_trusted |= parse(root)?.public_key().raw == issuer_public_key;
    }
    Ok(Facts {
        node_id,
        cluster_id,
        validity,
        issuer_subject: leaf.issuer().as_raw().to_vec(),
        issuer_public_key,
        issuer_is_trusted,
    })
}

/// Checks that roots are certificates that vouch for themselves.
pub(super) fn check_roots(root_pem: &str) -> Result<(), CertificateError> {
    for root in certificates("root certificate of the swarm", root_pem)? {
        let root = parse(&root)?;
        if root.subject().as_raw() != root.issuer().as_raw() {
            return Err(CertificateError::Wrong(
                "the swarm's root certificate was issued by another".to_owned(),
            ));
        }
    }
    Ok(())
}

/// The root that vouches for the chain. Each is tried alone, for during a rotation they have one name.
fn vouching<'a>(
    chain: &[CertificateDer<'_>],
    roots: &'a [CertificateDer<'static>],
    validity: Validity,
) -> Result<&'a CertificateDer<'static>, CertificateError> {
    let name = ServerName::try_from(WORKER).map_err(|error| CertificateError::Wrong(error.to_string()))?;
    // An ended certificate is told as such by the caller; here it is asked who issued it.
    let during = validity.not_before.midpoint(validity.not_after);
    let during = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(during).unwrap_or(0)));
    let mut last = rustls::Error::General("there is none".to_owned());
    for root in roots {
        let mut only = RootCertStore::empty();
        only.add(root.clone()).map_err(TlsError::from)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(only), provider())
            .build()
            .map_err(|error| CertificateError::Wrong(error.to_string()))?;
        match verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], during) {
            Ok(_) => return Ok(root),
            Err(error) => last = error,
        }
    }
    Err(CertificateError::Untrusted(last))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| CertificateError::Wrong(format!("it is no certificate: {error}")))?;
    Ok(parsed)
}

#[cfg(test)]
mod tests;
