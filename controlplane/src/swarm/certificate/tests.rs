use super::*;
use rcgen::{BasicConstraints, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// A root as swarms have them: all of one name.
struct Root {
    pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "swarm-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn new_root() -> Root {
    let key = KeyPair::generate().unwrap();
    let pem = root_params().self_signed(&key).unwrap().pem();
    Root {
        pem,
        key_pem: key.serialize_pem(),
        issuer: Issuer::new(root_params(), key),
    }
}

fn public_key(root: &Root) -> Vec<u8> {
    KeyPair::from_pem(&root.key_pem).unwrap().subject_public_key_info()
}

fn leaf_params(unit: &str, swarm: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![unit.to_owned(), "node1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::OrganizationName, swarm),
        (DnType::OrganizationalUnitName, unit),
        (DnType::CommonName, "node1"),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(1_800_086_400).unwrap();
    params
}

/// Signs the request's key, as a manager does: the rest is the manager's.
fn issue(request: &Request, root: &Root, params: CertificateParams) -> String {
    let mut signing = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
    signing.params = params;
    signing.signed_by(&root.issuer).unwrap().pem()
}

fn worker(request: &Request, root: &Root) -> String {
    issue(request, root, leaf_params("swarm-worker", "swarm1"))
}

#[test]
fn a_request_is_pem_of_a_key_that_managers_can_verify_and_names_nobody() {
    let request = request().unwrap();
    assert!(request.csr_pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    let pem = x509_parser::pem::parse_x509_pem(request.csr_pem.as_bytes()).unwrap().1;
    let csr = X509CertificationRequest::from_der(&pem.contents).unwrap().1;
    let info = &csr.certification_request_info;
    assert_eq!(info.subject.iter().count(), 0);
    // id-ecPublicKey
    assert_eq!(info.subject_pki.algorithm.algorithm.to_id_string(), "1.2.840.10045.2.1");
    assert_ne!(super::request().unwrap().key_pem, request.key_pem);
}

#[test]
fn a_worker_s_certificate_tells_node_swarm_and_issuer() {
    let (request, root) = (request().unwrap(), new_root());
    let facts = check(&worker(&request, &root), &request.key_pem, &root.pem).unwrap();
    assert_eq!((facts.node_id.as_str(), facts.cluster_id.as_str()), ("node1", "swarm1"));
    let life = Validity {
        not_before: 1_800_000_000,
        not_after: 1_800_086_400,
    };
    assert_eq!(facts.validity, life);
    assert!(facts.issuer_is_trusted);
    assert_eq!(facts.issuer_public_key, public_key(&root));
    // OID 2.5.4.3 and a UTF8String: the bytes of the certificate itself.
    assert!(
        facts.issuer_subject.ends_with(b"\x06\x03\x55\x04\x03\x0c\x08swarm-ca"),
        "{:02x?}",
        facts.issuer_subject
    );
}

#[test]
fn during_a_rotation_the_old_root_vouches_through_an_intermediate_one_and_the_new_root_directly() {
    let (request, old, new) = (request().unwrap(), new_root(), new_root());
    let new_key = KeyPair::from_pem(&new.key_pem).unwrap();
    let crossed = root_params().signed_by(&new_key, &old.issuer).unwrap().pem();
    let chain = format!("{}{crossed}", worker(&request, &new));
    let during = check(&chain, &request.key_pem, &old.pem).unwrap();
    assert!(!during.issuer_is_trusted);
    assert_eq!(during.issuer_public_key, public_key(&new));
    let after = check(&chain, &request.key_pem, &new.pem).unwrap();
    assert!(after.issuer_is_trusted);
    assert_eq!(after.issuer_public_key, during.issuer_public_key);
    // While both are trusted, the one that vouches is the issuer.
    let roots = format!("{}{}", new.pem, old.pem);
    let both = check(&worker(&request, &old), &request.key_pem, &roots).unwrap();
    assert_eq!(both.issuer_public_key, public_key(&old));
}

#[test]
fn what_is_not_a_worker_s_certificate_of_this_key_and_swarm_is_refused() {
    let (request, root, other) = (request().unwrap(), new_root(), new_root());
    let good = worker(&request, &root);
    let error = |chain: &str, key: &str, roots: &str| check(chain, key, roots).unwrap_err().to_string();
    let own = |chain: &str| error(chain, &request.key_pem, &root.pem);

    let foreign_key = super::request().unwrap().key_pem;
    assert!(error(&good, &foreign_key, &root.pem).contains("it is not of this node's key"));
    assert!(error(&good, &request.key_pem, &other.pem).contains("no trusted certificate of the swarm vouches for it"));
    let manager = issue(&request, &root, leaf_params("swarm-manager", "swarm1"));
    let refused = check(&manager, &request.key_pem, &root.pem);
    assert!(matches!(refused, Err(CertificateError::Manager { node_id }) if node_id == "node1"));
    let other_unit = issue(&request, &root, leaf_params("swarm-x", "swarm1"));
    assert!(own(&other_unit).contains("its unit is Some(\"swarm-x\"), not swarm-worker"));
    let fips = issue(&request, &root, leaf_params("swarm-worker", "FIPS.swarm1"));
    assert!(own(&fips).contains("mandates FIPS 140"));
    assert!(own("").contains("no certificate in PEM"));
    assert!(own("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("it is no certificate"));
    assert!(error(&good, &request.key_pem, "nothing").contains("root certificate of the swarm is damaged"));
}

#[test]
fn roots_vouch_for_themselves() {
    let (request, root) = (request().unwrap(), new_root());
    check_roots(&format!("{}{}", root.pem, new_root().pem)).unwrap();
    let error = check_roots(&worker(&request, &root)).unwrap_err().to_string();
    assert!(error.contains("was issued by another"), "{error}");
}
