//! TLS 1.3 between nodes: who trusts whom.

use super::authority::{CertificateError, der};
use super::token::digest;
use crate::store::Identity;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use std::sync::{Arc, Mutex};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A stored certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A stored key.
    #[error("private key of this node: {0}")]
    Key(String),
    /// Their combination.
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
    /// The verifier of clients.
    #[error("TLS: {0}")]
    Verifier(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(identity: &Identity) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&identity.ca_pem)?)?;
    Ok(roots)
}

fn own_chain(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    // The authority goes along, so that a joining node, which knows only its digest, can find it.
    let chain = vec![der(&identity.certificate_pem)?, der(&identity.ca_pem)?];
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| TlsError::Key(error.to_string()))?;
    Ok((chain, key))
}

/// The manager's side: a client may be unknown, for it may be about to join.
pub(super) fn server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let (chain, key) = own_chain(identity)?;
    Ok(ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

/// A member's side.
pub(super) fn member_config(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let (chain, key) = own_chain(identity)?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(chain, key)?)
}

/// A joining node's side: it trusts the authority whose digest is in its token, and no other.
pub(super) fn joiner_config(pin: &Arc<PinnedAuthority>) -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(pin) as Arc<dyn ServerCertVerifier>;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Verifies a manager against the digest of its authority, and keeps the authority's certificate for later.
#[derive(Debug)]
pub(super) struct PinnedAuthority {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedAuthority {
    pub(super) fn new(digest: [u8; 32]) -> PinnedAuthority {
        PinnedAuthority {
            digest,
            provider: provider(),
            found: Mutex::new(None),
        }
    }

    /// The authority's certificate, after a handshake.
    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.found.lock().ok()?.clone()
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = intermediates
            .iter()
            .find(|certificate| digest(certificate) == self.digest)
        else {
            return Err(Error::General(MISMATCH.to_owned()));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        if let Ok(mut found) = self.found.lock() {
            *found = Some(authority.clone().into_owned());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How a handshake against the wrong authority is told from other failures.
pub(super) const MISMATCH: &str = "no certificate of the manager has the digest in the join token";
