use super::*;

#[test]
fn base64_refuses_where_go_does() {
    let at = |text: &str| decode_base64(text.as_bytes()).expect_err(text).to_string();
    for (text, byte) in [
        ("not*base64", 3),
        ("aGVsb", 4),
        ("a", 0),
        ("aGVsbG8", 4),
        ("=", 0),
        ("a=", 1),
        ("aa=", 3),
        ("aa=a", 2),
        ("aa==a", 4),
        ("aaa=a", 4),
        ("aGVs bG8=", 4),
        ("hello", 4),
    ] {
        assert_eq!(at(text), format!("illegal base64 data at input byte {byte}"), "{text}");
    }
}

#[test]
fn base64_accepts_what_go_does() {
    for (text, bytes) in [
        ("", &b""[..]),
        ("aGVsbG8=", b"hello"),
        ("aGVs\r\nbG8=\n", b"hello"),
        ("aGVsbG9=", b"hello"),
        ("aA=\n=", b"h"),
        ("/+8A", &[0xff, 0xef, 0x00]),
    ] {
        assert_eq!(decode_base64(text.as_bytes()).as_deref(), Ok(bytes), "{text:?}");
    }
}

#[test]
fn base64_returns_what_it_encoded() {
    for length in 0..70u8 {
        let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37).wrapping_add(length)).collect();
        assert_eq!(decode_base64(encode_base64(&bytes).as_bytes()), Ok(bytes));
    }
}

#[test]
fn json_escapes_as_go() {
    let written = |bytes: &[u8]| String::from_utf8(Json::Text(bytes.to_vec()).compact()).unwrap();
    assert_eq!(written(b"<a&b>"), r#""\u003ca\u0026b\u003e""#);
    assert_eq!(
        written("\"\\\n\r\t\u{1}\u{7f}é\u{2028}".as_bytes()),
        "\"\\\"\\\\\\n\\r\\t\\u0001\u{7f}é\\u2028\""
    );
    assert_eq!(written(b"a\xffb\xe2\x82c"), r#""a\ufffdb\ufffd\ufffdc""#);
}

#[test]
fn json_indents_as_go() {
    let value = Json::Object(vec![
        ("message", Json::text("OK")),
        (
            "details",
            Json::Object(vec![
                ("size", Json::Number(1)),
                ("entries", Json::List(vec![Json::Null, Json::Bool(true)])),
            ]),
        ),
        ("empty", Json::List(Vec::new())),
    ]);
    let pretty = String::from_utf8(value.pretty()).unwrap();
    assert_eq!(
        pretty,
        "{\n  \"message\": \"OK\",\n  \"details\": {\n    \"size\": 1,\n    \"entries\": [\n      null,\n      true\n    ]\n  },\n  \"empty\": []\n}"
    );
    assert_eq!(
        value.compact(),
        br#"{"message":"OK","details":{"size":1,"entries":[null,true]},"empty":[]}"#
    );
}

#[test]
fn quotes_as_go() {
    for (bytes, quoted) in [
        (&b"net1"[..], r#""net1""#),
        (b"a\"b\\c\n\x00\x7f\xff", r#""a\"b\\c\n\x00\x7f\xff""#),
        (
            "it's é\u{301} \u{a0}\u{e000}\u{1f600}".as_bytes(),
            "\"it's é\u{301} \\u00a0\\ue000\u{1f600}\"",
        ),
    ] {
        assert_eq!(quote(bytes), quoted);
    }
}
