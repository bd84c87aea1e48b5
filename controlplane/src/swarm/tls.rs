//! TLS towards a swarm's managers: who is trusted before and after the join (`spec/swarm-agent.md` 8.3).

use super::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The name in a manager's certificate; its address is not in it.
pub(super) const MANAGER: &str = "swarm-manager";

/// The name in the certificate of whoever issues certificates: a manager, or an authority outside.
pub(super) const AUTHORITY: &str = "swarm-ca";

/// Go's managers before 28.0 do not answer it; none refuses it.
const ALPN: &[u8] = b"h2";

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A certificate or key.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Their combination.
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a PEM text.
pub(super) fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let damaged = |reason: String| TlsError::Damaged { what, reason };
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| damaged(error.to_string()))?;
    if found.is_empty() {
        return Err(damaged("no certificate in PEM".to_owned()));
    }
    Ok(found)
}

/// The trusted certificates of a PEM text.
pub(super) fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("root certificate of the swarm", pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Trusts anybody: only to ask for the root certificates, which are then compared with something known.
pub(super) fn unverified() -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Anybody(provider()));
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(offering_http2(config))
}

/// Trusts the swarm's roots, and shows no certificate: before there is one.
pub(super) fn joining(root_pem: &str) -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(root_pem)?)
        .with_no_client_auth();
    Ok(offering_http2(config))
}

/// Trusts the swarm's roots, and shows this node's whole chain.
pub(super) fn member(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let chain = certificates("certificate of this node", &identity.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| TlsError::Damaged {
        what: "private key of this node",
        reason: error.to_string(),
    })?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&identity.root_pem)?)
        .with_client_auth_cert(chain, key)?;
    Ok(offering_http2(config))
}

fn offering_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Verifies that the other side holds the key of the certificate that it shows, whichever that is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
