use super::*;
use std::time::Duration;

fn parse(args: &[&str]) -> Result<Flags, Stop> {
    flags::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
}

fn wrong(args: &[&str]) -> String {
    match parse(args) {
        Err(Stop::Wrong(what)) => what,
        other => panic!("{args:?} gave {other:?}"),
    }
}

#[test]
fn flags_are_taken_in_all_forms_of_go() {
    let flags = parse(&[
        "-ip",
        "h",
        "--port=0x10",
        "-net=n=1",
        "--t",
        "sd",
        "-v",
        "-a=false",
        "-r=T",
        "-timeout",
        "1m0.5s",
    ]);
    let flags = flags.unwrap();
    assert_eq!(
        (flags.ip.as_str(), flags.port, flags.network.as_str()),
        ("h", 16, "n=1")
    );
    assert_eq!(
        (flags.table, flags.verbose, flags.join, flags.remediate),
        (Some(Table::Endpoints), true, false, true)
    );
    assert_eq!(flags.timeout, Some(Duration::from_millis(60_500)));
    let defaults = parse(&[]).unwrap();
    assert_eq!(
        (defaults.ip.as_str(), defaults.port, defaults.table, defaults.timeout),
        ("127.0.0.1", 2000, None, None)
    );
}

#[test]
fn flags_end_where_go_ends_them() {
    for stop in ["x", "-", "--"] {
        assert!(!parse(&[stop, "-v"]).unwrap().verbose, "{stop}");
    }
    assert_eq!(parse(&["-t", "nothing"]).unwrap().table, None);
    assert_eq!(parse(&["-timeout", "0"]).unwrap().timeout, None);
}

#[test]
fn wrong_flags_are_refused_in_go_s_words() {
    for (args, message) in [
        (&["-zz"][..], "flag provided but not defined: -zz"),
        (&["-net"], "flag needs an argument: -net"),
        (&["---v"], "bad flag syntax: ---v"),
        (&["-=v"], "bad flag syntax: -=v"),
        (&["-v=maybe"], "invalid boolean value \"maybe\" for -v: parse error"),
        (&["-port", "x"], "invalid value \"x\" for flag -port: parse error"),
        (&["-port", "-"], "invalid value \"-\" for flag -port: parse error"),
        (&["-port", "+-1"], "invalid value \"+-1\" for flag -port: parse error"),
        (&["-port="], "invalid value \"\" for flag -port: parse error"),
        (
            &["-port", "99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -port: value out of range",
        ),
        (&["-timeout", ""], "invalid value \"\" for flag -timeout: parse error"),
        (&["-timeout", "5"], "invalid value \"5\" for flag -timeout: parse error"),
        (&["-timeout", "s"], "invalid value \"s\" for flag -timeout: parse error"),
        (
            &["-timeout", "-1s"],
            "invalid value \"-1s\" for flag -timeout: parse error",
        ),
        (
            &["-timeout", "1e9h"],
            "invalid value \"1e9h\" for flag -timeout: parse error",
        ),
    ] {
        assert_eq!(wrong(args), message);
    }
    assert_eq!(parse(&["-h"]), Err(Stop::Help));
    assert_eq!(parse(&["-v", "--help"]), Err(Stop::Help));
}

#[test]
fn usage_is_docker_s_and_two_flags_more() {
    assert_eq!(
        flags::usage("diagnosticClient"),
        "Usage of diagnosticClient:\n  -a\tjoin/leave network\n  -ip string\n    \tip address (default \"127.0.0.1\")\n  -json\n    \t\
         print what was found as JSON to standard output\n  -net string\n    \ttarget network\n  -port int\n    \tport (default 2000)\n  \
         -r\tperform remediation deleting orphan entries\n  -t string\n    \ttable to process <sd/overlay>\n  -timeout duration\n    \t\
         time limit of each request as 500ms or 1m30s, no limit if 0\n  -v\tverbose output\n"
    );
}

#[test]
fn replies_are_read_as_leniently_as_by_go() {
    let peer = |name: &str, ip: &str| NamedPeer {
        name: name.to_owned(),
        ip: ip.to_owned(),
    };
    for (body, expected) in [
        (
            r#"{"message":"OK","details":{"size":2,"entries":[{"-=name":"a","ip":"10.0.0.1"},{"-=name":"b","ip":""}]}}"#,
            vec![peer("a", "10.0.0.1"), peer("b", "")],
        ),
        (
            r#"{"MESSAGE":"OK","Details":{"Entries":[{"-=NAME":"orphan-a","IP":"unknown","more":1}]}}"#,
            vec![peer("orphan-a", "unknown")],
        ),
        (r#"{"message":"OK","details":{"size":0,"entries":null}}"#, vec![]),
        (r#"{"message":"OK"}"#, vec![]),
        ("{}", vec![]),
        (r#"{"details":{"entries":[{}]}}"#, vec![peer("", "")]),
    ] {
        assert_eq!(fetch::peers(body.as_bytes()), Ok(expected), "{body}");
    }
}

#[test]
fn replies_that_are_none_are_refused() {
    for (body, error) in [
        (
            r#"{"message":"FAIL","details":{"error":"no such table"}}"#,
            "the server answered FAIL: no such table",
        ),
        (
            r#"{"message":"not implemented","details":{"usage":"URL path: /gettable no method implemented check /help\n"}}"#,
            "the server answered not implemented: URL path: /gettable no method implemented check /help",
        ),
        (
            r#"{"message":"OK","details":null}"#,
            "details are null, an object was expected",
        ),
        (r#"{"details":{"entries":3}}"#, "entries are 3, a list was expected"),
        (
            r#"{"details":{"entries":[{"key":3}]}}"#,
            "key is 3, a string was expected",
        ),
        ("not json", "expected ident at line 1 column 2: \"not json\""),
    ] {
        assert_eq!(fetch::rows(body.as_bytes()).unwrap_err(), error);
    }
}
