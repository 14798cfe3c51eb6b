//! The definitions of `examples/vendor-pricing`, with the addresses of the company that runs.
//!
//! Owns: the files as they were when this executable was built. Never: changes anything in them but endpoints.
use anyhow::ensure;
use kapell_company::Addresses;
use kapell_proto::v1::SourceFile;

const FILES: [(&str, &str); 5] = [
    ("connectors.yaml", include_str!("../../../../examples/vendor-pricing/connectors.yaml")),
    ("connections.yaml", include_str!("../../../../examples/vendor-pricing/connections.yaml")),
    ("specialists.yaml", include_str!("../../../../examples/vendor-pricing/specialists.yaml")),
    ("policies.yaml", include_str!("../../../../examples/vendor-pricing/policies.yaml")),
    ("workflow.yaml", include_str!("../../../../examples/vendor-pricing/workflow.yaml")),
];

/// The namespace that they are written for.
pub(super) const NAMESPACE: &str = "retail";

/// The files, ready to be applied.
pub(super) fn of(addresses: &Addresses) -> anyhow::Result<Vec<SourceFile>> {
    let endpoints = [
        ("http://127.0.0.1:7801", addresses.shop_north.clone()),
        ("http://127.0.0.1:7802", addresses.shop_south.clone()),
        ("smtp://127.0.0.1:7803", format!("smtp://{}", addresses.smtp)),
        // In quotes: a folder may have any name.
        ("sqlite:company/erp.sqlite", quoted(&format!("sqlite:{}", addresses.erp.display()))),
    ];
    let mut files = Vec::new();
    for (name, text) in FILES {
        let mut text = text.to_owned();
        if name == "connections.yaml" {
            for (written, real) in &endpoints {
                ensure!(text.contains(written), "{name} does not name {written} any more");
                text = text.replace(written, real);
            }
        }
        files.push(SourceFile { name: name.to_owned(), text });
    }
    Ok(files)
}

/// As a double-quoted YAML text, which JSON texts are.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_replaced() {
        let addresses = Addresses {
            shop_north: "http://127.0.0.1:1".into(),
            shop_south: "http://127.0.0.1:2".into(),
            postings: "http://127.0.0.1:3".into(),
            webmail: "http://127.0.0.1:4".into(),
            smtp: "127.0.0.1:5".parse().unwrap(),
            erp: "/tmp/a: #b/erp.sqlite".into(),
        };
        let files = of(&addresses).unwrap();
        let connections = &files.iter().find(|file| file.name == "connections.yaml").unwrap().text;
        let endpoints: Vec<_> = connections.lines().filter(|line| line.contains("endpoint:")).collect();
        assert_eq!(
            endpoints,
            [
                "  endpoint: http://127.0.0.1:1",
                "  endpoint: http://127.0.0.1:2",
                "  endpoint: \"sqlite:/tmp/a: #b/erp.sqlite\"",
                "  endpoint: smtp://127.0.0.1:5",
            ]
        );
    }
}
