//! Tables and their entries.

use super::{Call, Outcome};
use crate::golang::decode_base64;
use crate::reply::Details;
use crate::{EntryAddress, Request, Row};

impl Call {
    fn address(&self) -> EntryAddress {
        EntryAddress {
            table: self.text("tname"),
            network: self.text("nid"),
            key: self.text("key"),
        }
    }

    /// The parameter `value`: raw with `unsafe`, else in base64.
    fn value(&self) -> Result<Vec<u8>, String> {
        let value = self.form.bytes("value").unwrap_or_default();
        if self.format.raw_values {
            Ok(value.to_vec())
        } else {
            decode_base64(value).map_err(|e| e.to_string())
        }
    }
}

/// Writes a new entry.
pub(crate) async fn create(call: Call) -> Outcome {
    let (address, value) = (call.address(), call.value()?);
    call.ask(|reply| Request::CreateEntry(address, value, reply)).await??;
    Ok(Details::None)
}

/// Writes an entry that exists; it then belongs to this node.
pub(crate) async fn update(call: Call) -> Outcome {
    let (address, value) = (call.address(), call.value()?);
    call.ask(|reply| Request::UpdateEntry(address, value, reply)).await??;
    Ok(Details::None)
}

/// Deletes an entry, whoever owns it.
pub(crate) async fn delete(call: Call) -> Outcome {
    let address = call.address();
    call.ask(|reply| Request::DeleteEntry(address, reply)).await??;
    Ok(Details::None)
}

/// One value. The owner is left empty, as Docker does.
pub(crate) async fn get(call: Call) -> Outcome {
    let address = call.address();
    let value = call.ask(|reply| Request::GetEntry(address, reply)).await??;
    Ok(Details::Entry(Row {
        key: call.text("key"),
        value,
        owner: String::new(),
    }))
}

/// All rows of a table; with `owners=all` failed nodes' too, marked.
pub(crate) async fn table(call: Call) -> Outcome {
    let (table, network) = (call.text("tname"), call.text("nid"));
    match call.text("owners").as_str() {
        "" => {}
        "all" => {
            return call
                .ask(|reply| Request::GetTableOfAll(table, network, reply))
                .await
                .map(Details::MarkedRows);
        }
        other => return Err(format!("owners={other} is not valid: only owners=all")),
    }
    call.ask(|reply| Request::GetTable(table, network, reply))
        .await
        .map(Details::Rows)
}
