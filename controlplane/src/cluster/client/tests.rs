//! How a manager may be named.

use super::*;

#[test]
fn a_port_is_added_where_none_is() {
    for (given, wanted) in [
        ("host", "host:2377"),
        ("host:99", "host:99"),
        ("manager_1.example", "manager_1.example:2377"),
        ("192.0.2.1", "192.0.2.1:2377"),
        ("192.0.2.1:99", "192.0.2.1:99"),
        ("::1", "[::1]:2377"),
        ("[::1]", "[::1]:2377"),
        ("[::1]:99", "[::1]:99"),
    ] {
        assert_eq!(with_port(given, 2377).as_deref(), Ok(wanted), "{given}");
    }
}

#[test]
fn what_is_no_host_is_told() {
    for given in [
        "",
        ":",
        ":99",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "a b",
        "a/b",
        "https://host",
        "[::1",
        "[::1]:x",
        "1::2::3",
    ] {
        let refused = with_port(given, 2377).expect_err(given);
        assert_eq!(refused.kind, RefusedKind::Invalid);
        assert!(refused.message.contains(&format!("{given:?}")), "{refused}");
    }
}
