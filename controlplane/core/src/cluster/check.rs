//! What names and labels may look like.

use super::refusal::Refusal;
use super::{EndpointMode, Service};
use crate::service::MAX_AFFINITY_SECONDS;
use std::collections::BTreeMap;
use weft_dataplane::abi::load::MAX_WEIGHT;

/// Longest name of a network, service or node: one DNS label (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 63;

/// Longest name or alias of an endpoint: with `.` and the longest network name behind it, it is still a DNS name of 253
/// characters (RFC 1035 section 2.3.4).
pub const MAX_ENDPOINT_NAME: usize = 253 - 1 - MAX_NAME;

/// The most labels of a network. They are stored and sent whole with every inspect; users write a handful.
const MAX_LABELS: usize = 128;

/// Longest key or value of a label, bytes; bounds a row of the store together with [`MAX_LABELS`].
const MAX_LABEL_BYTES: usize = 4096;

/// Docker's rule for names, and DNS's: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, each part between dots 1 to 63 characters.
pub(super) fn name(what: &str, text: &str, longest: usize) -> Result<(), Refusal> {
    let starts_right = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let characters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let labels = text.split('.').all(|label| (1..=63).contains(&label.len()));
    if starts_right && characters && labels && text.len() <= longest {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "invalid {what} {text:?}: it should be [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most {longest} characters, with 1 to 63 between dots"
    )))
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > MAX_LABELS {
        return Err(Refusal::invalid(format!(
            "{} labels given: at most {MAX_LABELS} are possible",
            labels.len()
        )));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return Err(Refusal::invalid(format!(
                "label with value {value:?} has no name: it should be name=value"
            )));
        }
        if key.len().max(value.len()) > MAX_LABEL_BYTES {
            let start: String = key.chars().take(MAX_NAME).collect();
            return Err(Refusal::invalid(format!(
                "label {start:?} is too long: name and value may have {MAX_LABEL_BYTES} bytes each"
            )));
        }
    }
    Ok(())
}

pub(super) fn weight(task: &str, weight: u32) -> Result<(), Refusal> {
    if weight <= MAX_WEIGHT {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "weight {weight} of task {task} is out of range: it should be 1 to {MAX_WEIGHT}, or 0 to let the task drain"
    )))
}

pub(super) fn affinity(service: &str, seconds: u32) -> Result<(), Refusal> {
    if seconds <= MAX_AFFINITY_SECONDS {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "affinity {seconds} of service {service} is out of range: it should be 1 to {MAX_AFFINITY_SECONDS} seconds, or 0 for none"
    )))
}

/// Only what has a virtual IP is balanced.
pub(super) fn balanced(service: &Service, what: &str) -> Result<(), Refusal> {
    match service.mode {
        EndpointMode::Vip => Ok(()),
        EndpointMode::Dnsrr => Err(not_balanced(&service.name, what)),
    }
}

pub(super) fn not_balanced(service: &str, what: &str) -> Refusal {
    Refusal::invalid(format!(
        "service {service} cannot have {what}: its mode is dnsrr, and only services of mode vip are balanced"
    ))
}
