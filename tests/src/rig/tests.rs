//! The rig itself: what it makes works, and nothing of it stays.

use super::*;
use std::time::Duration;

#[test]
fn a_condition_that_never_holds_is_named_with_its_last_reason() {
    let mut tries = 0;
    let error = wait_until(Duration::ZERO, "pigs fly", || -> Result<(), String> {
        tries += 1;
        Err(format!("try {tries}"))
    });
    assert_eq!(error.unwrap_err().to_string(), "not within 0 s: pigs fly; last: try 1");
    let mut tries = 0;
    let value = wait_until(Duration::from_secs(10), "the third try succeeds", || {
        tries += 1;
        if tries == 3 { Ok(tries) } else { Err("not yet") }
    });
    assert_eq!(value, Ok(3));
}

#[test]
fn only_names_of_rigs_have_an_owner() {
    assert_eq!(leftovers::owner("weft4711_0"), Some(4711));
    for name in ["weft", "weft4711", "weftx_1", "weft1_x", "4711_0", "weft-1_0"] {
        assert_eq!(leftovers::owner(name), None, "{name}");
    }
}

#[test]
fn wrong_options_are_refused_by_value() {
    for hosts in [0, MAX_HOSTS + 1] {
        let error = Rig::new(Options {
            hosts,
            ..Options::default()
        })
        .unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("{hosts} hosts: choose 1 to")),
            "{error}"
        );
    }
}

#[test]
fn a_failed_command_is_told_as_typed_with_its_words() {
    let mut command = command::limited("sh");
    let error = run(command.args(["-c", "echo out; echo why >&2; exit 3"]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "`sh -c echo out; echo why >&2; exit 3` ended with exit status: 3: why\nout"
    );
}
