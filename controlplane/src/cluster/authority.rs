//! The cluster's certificate authority, on the manager.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

/// The name in the manager's certificate. Only the manager's has it, so that no worker can pass for it.
pub(super) const MANAGER_NAME: &str = "manager.weft";

/// Clocks of hosts differ; a certificate must not be refused for having been signed "tomorrow".
const CLOCK_DIFFERENCE: Duration = Duration::days(1);

/// Certificates live as long as the authority: nodes do not renew them yet, so they must not run out unnoticed.
const LIFETIME: Duration = Duration::days(3650);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("certificate {what}: {reason}")]
pub struct CertificateError {
    what: &'static str,
    reason: String,
}

fn error(what: &'static str) -> impl Fn(rcgen::Error) -> CertificateError {
    move |reason| CertificateError {
        what,
        reason: reason.to_string(),
    }
}

/// Signs the certificates of the cluster's nodes.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a key of its own.
    pub fn create() -> Result<Authority, CertificateError> {
        let key = KeyPair::generate().map_err(error("key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "weft cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_lifetime(&mut params);
        let certificate = params.self_signed(&key).map_err(error("of the authority"))?;
        Ok(Authority {
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority that was stored.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Authority, CertificateError> {
        let key = KeyPair::from_pem(key_pem).map_err(error("key of the authority"))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(error("of the authority"))?;
        Ok(Authority {
            certificate_pem: certificate_pem.to_owned(),
            issuer,
        })
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate_pem.clone()
    }

    /// Its private key, PEM.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate and key for the manager itself.
    pub fn issue_manager(&self, node: &str) -> Result<(String, String), CertificateError> {
        let key = KeyPair::generate().map_err(error("key"))?;
        let mut params = CertificateParams::new(vec![MANAGER_NAME.to_owned()]).map_err(error("of the manager"))?;
        node_params(&mut params, node);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(error("of the manager"))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Signs a worker's request. Of the request only the key is taken: name and uses are the manager's to say.
    pub fn sign(&self, csr_pem: &str, node: &str) -> Result<String, CertificateError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(error("signing request"))?;
        let mut params = CertificateParams::default();
        node_params(&mut params, node);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params = params;
        Ok(request.signed_by(&self.issuer).map_err(error("of the node"))?.pem())
    }
}

/// A key for a joining node, and the request that the manager signs: (request PEM, key PEM).
pub(super) fn signing_request(node: &str) -> Result<(String, String), CertificateError> {
    let key = KeyPair::generate().map_err(error("key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, node);
    let request = params
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .map_err(error("signing request"))?;
    Ok((request, key.serialize_pem()))
}

/// The node's name out of its certificate.
pub(super) fn node_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// The first certificate of a PEM text, DER.
pub fn der(pem: &str) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|reason| CertificateError {
        what: "in PEM",
        reason: reason.to_string(),
    })
}

fn node_params(params: &mut CertificateParams, node: &str) {
    params.distinguished_name.push(DnType::CommonName, node);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    set_lifetime(params);
}

fn set_lifetime(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_DIFFERENCE;
    params.not_after = now + LIFETIME;
}
