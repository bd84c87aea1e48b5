use super::*;

#[test]
fn body_comes_before_the_query_and_the_first_value_wins() {
    let form = Form::new(b"nid=body", b"nid=query&nid=again&key=k");
    assert_eq!(form.text("nid"), "body");
    assert_eq!(form.text("key"), "k");
    assert!(!form.has("value"));
}

#[test]
fn an_empty_value_counts_as_present() {
    let form = Form::new(b"", b"nid=&json");
    assert!(form.has("nid") && form.has("json"));
    assert_eq!(form.bytes("nid"), Some(&b""[..]));
}

#[test]
fn what_does_not_parse_is_left_out() {
    let form = Form::new(b"", b"a=%zz&b=1;c=2&&=x&d=%4&e=a%2Bb+c&f=x=y");
    assert_eq!([form.has("a"), form.has("b"), form.has("c"), form.has("d")], [false; 4]);
    assert_eq!(form.text("e"), "a+b c");
    assert_eq!(form.text("f"), "x=y");
    assert_eq!(form.text(""), "x");
}

#[test]
fn debug_lines_are_those_of_docker() {
    let form = Form::new(b"nid=a", b"nid=b&json");
    assert_eq!(
        form.debug_lines().collect::<Vec<_>>(),
        ["Form[\"json\"] = [\"\"]\n", "Form[\"nid\"] = [\"a\" \"b\"]\n"]
    );
}

#[test]
fn unescape_undoes_escape() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unescape(escape(&all, b"").as_bytes(), true), Some(all.clone()));
    assert_eq!(unescape(escape(&all, b"/").as_bytes(), false), Some(all));
    assert_eq!(escape(b"a b/c&d", b""), "a%20b%2Fc%26d");
}
