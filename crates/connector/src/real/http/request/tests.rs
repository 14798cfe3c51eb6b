use kapell_model::definition::Tool;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn compiled(http: &Value) -> CompiledHttp {
    let tool: Tool = serde_json::from_value(json!({ "name": "t", "http": http })).unwrap();
    let made = kapell_model::catalogue::CompiledOperation::compile(&tool).unwrap();
    let kapell_model::catalogue::CompiledOperation::Http(http) = made else { panic!("{made:?}") };
    http
}

fn scope(args: &Value) -> Scope {
    let mut scope = Scope::new();
    scope.set("args", args);
    scope
}

fn url_of(endpoint: &str, http: &Value, args: &Value) -> Result<Url, TaskError> {
    url(endpoint, &compiled(http), &scope(args))
}

#[test]
fn paths_and_parameters_are_joined_to_the_endpoint() {
    let http = json!({"method": "GET", "path": "/items/${args.id}/notes", "query": {
        "q": "${args.q}", "none": null, "tag": "${args.tags}", "limit": 5
    }});
    let args = json!({"id": "a/b c", "q": "x&y=z", "tags": ["1", "2"]});
    let url = url_of("https://api.example:8443/base/", &http, &args).unwrap();
    assert_eq!(
        url.as_str(),
        "https://api.example:8443/base/items/a%2Fb%20c/notes?limit=5&q=x%26y%3Dz&tag=1&tag=2"
    );
}

#[test]
fn values_that_change_the_shape_of_a_path_are_refused() {
    let http = json!({"method": "DELETE", "path": "/items/${args.id}"});
    for bad in ["", ".", "..", "%2e", "%2E."] {
        let refused = url_of("http://h/base", &http, &json!({ "id": bad }));
        // A percent sign in a value is encoded itself, so it climbs nowhere.
        match refused {
            Err(error) => assert_eq!(error.class, ErrorClass::BadRequest, "{bad}"),
            Ok(url) => assert_eq!(url.path(), format!("/base/items/{}", percent_encode(bad)), "{bad}"),
        }
    }
    assert!(url_of("http://h", &http, &json!({ "id": ".." })).is_err());
    assert!(url_of("http://h", &http, &json!({ "id": "" })).is_err());
    assert_eq!(url_of("http://h", &http, &json!({})).unwrap_err().class, ErrorClass::Expression);
    let joined = json!({"method": "GET", "path": "@${args.id}"});
    assert_eq!(url_of("http://h", &joined, &json!({ "id": "evil" })).unwrap().host_str(), Some("h"));
}

#[test]
fn header_values_hold_no_line_ends() {
    assert_eq!(header("X-A", "a\r\nX-B: b").unwrap_err().class, ErrorClass::BadRequest);
    assert_eq!(header("X-A", "größe").unwrap().as_bytes(), "größe".as_bytes());
    assert_eq!(secret_header("a\nb").unwrap_err().class, ErrorClass::Auth);
    assert!(!format!("{:?}", secret_header("hush").unwrap()).contains("hush"));
}

/// Texts that mean something to some parser on the way.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "/",
        "..",
        ".",
        "%2F",
        "%2e",
        "?",
        "#",
        "&",
        "=",
        ";",
        "\\",
        "@",
        ":",
        "//",
        "'",
        "\"",
        " ",
        "+",
        "\r\n",
        "\0",
        "ä",
        "a",
        "0",
        "$",
        "{",
        "}",
        "http://evil.example/",
        "日本",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 1..8).prop_map(|parts| parts.concat()),
        any::<String>().prop_filter("empty is refused", |text| !text.is_empty()),
    ]
}

fn percent_decode(text: &str) -> Vec<u8> {
    let (mut bytes, raw) = (Vec::new(), text.as_bytes());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'%' {
            bytes.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            bytes.push(raw[at]);
            at += 1;
        }
    }
    bytes
}

proptest! {
    /// A value in a path is one segment, and comes out as it went in; or it is refused.
    #[test]
    fn a_value_stays_in_its_segment(value in hostile()) {
        let http = json!({"method": "GET", "path": "/a/${args.v}/z"});
        match url_of("http://host.example:1/base", &http, &json!({ "v": value })) {
            Err(error) => {
                prop_assert_eq!(error.class, ErrorClass::BadRequest);
                prop_assert!(value == "." || value == "..", "{:?} is refused: {}", value, error);
            }
            Ok(url) => {
                prop_assert_eq!((url.host_str(), url.port(), url.query(), url.fragment()), (Some("host.example"), Some(1), None, None));
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 4, "{}", url);
                prop_assert_eq!((segments[0], segments[1], segments[3]), ("base", "a", "z"));
                prop_assert_eq!(percent_decode(segments[2]), value.as_bytes());
            }
        }
    }

    /// A value in a query is one parameter.
    #[test]
    fn a_value_stays_in_its_parameter(value in hostile()) {
        let http = json!({"method": "GET", "path": "/a", "query": {"v": "${args.v}", "w": 1}});
        let url = url_of("http://h/b", &http, &json!({ "v": value })).unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        prop_assert_eq!(pairs, [("v".to_owned(), value), ("w".to_owned(), "1".to_owned())]);
        prop_assert_eq!((url.path(), url.fragment()), ("/b/a", None));
    }

    /// A value in a header is one header, or refused.
    #[test]
    fn a_value_stays_in_its_header(value in hostile()) {
        match header("X-V", &value) {
            Ok(header) => prop_assert_eq!(header.as_bytes(), value.as_bytes()),
            Err(_) => prop_assert!(value.bytes().any(|byte| byte < 32 || byte == 127)),
        }
    }
}
