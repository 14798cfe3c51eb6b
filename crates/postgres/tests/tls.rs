//! What `sslmode` promises, against a real server that speaks TLS and one that does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::path::PathBuf;
use std::time::Duration;

use kapell_postgres::{Session, Target, describe};
use kapell_tests_servers::{Durability, Postgres, Setup};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

const SESSION: Session = Session {
    application_name: "kapell-test",
    options: "-c jit=off",
    connect_within: Duration::from_secs(5),
};

/// A server whose certificate was signed by `ca`, for the name `db.example` only.
struct Secured {
    server: Postgres,
    ca: PathBuf,
    other_ca: PathBuf,
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

fn start(names: &[&str]) -> Option<Secured> {
    let (issuer, ca) = authority();
    let key = KeyPair::generate().unwrap();
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let server =
        Setup::default().durability(Durability::Unsynced).tls(&certificate.pem(), &key.serialize_pem());
    let server = server.start()?;
    let (ca_file, other_ca) = (server.folder().join("ca.pem"), server.folder().join("other-ca.pem"));
    std::fs::write(&ca_file, ca).unwrap();
    std::fs::write(&other_ca, authority().1).unwrap();
    Some(Secured { server, ca: ca_file, other_ca })
}

/// Whether the connection is encrypted, or why there is none.
async fn connect(url: &str) -> Result<bool, String> {
    let target = Target::parse(url, &SESSION).map_err(|error| error.to_string())?;
    let (client, connection) = target.connect().await.map_err(|error| describe(&error))?;
    #[expect(clippy::disallowed_methods, reason = "the connection of a test")]
    tokio::spawn(connection);
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(client.query_one(sql, &[]).await.unwrap().get(0))
}

#[tokio::test]
async fn a_server_is_trusted_as_far_as_sslmode_says() {
    let Some(secured) = start(&["db.example"]) else { return };
    let (url, ca, other) = (secured.server.url(), secured.ca.display(), secured.other_ca.display());
    assert_eq!(connect(&format!("{url}?sslmode=disable")).await, Ok(false));
    for unverified in ["", "?sslmode=prefer", "?sslmode=require"] {
        assert_eq!(connect(&format!("{url}{unverified}")).await, Ok(true), "{unverified}");
    }
    for known in ["require", "verify-ca"] {
        assert_eq!(connect(&format!("{url}?sslmode={known}&sslrootcert={ca}")).await, Ok(true), "{known}");
        let refused = connect(&format!("{url}?sslmode={known}&sslrootcert={other}")).await.unwrap_err();
        assert!(refused.contains("certificate"), "{known}: {refused}");
    }
    let unknown = connect(&format!("{url}?sslmode=verify-ca")).await.unwrap_err();
    assert!(unknown.contains("certificate"), "the machine does not know this authority: {unknown}");
    let misnamed = connect(&format!("{url}?sslmode=verify-full&sslrootcert={ca}")).await.unwrap_err();
    assert!(misnamed.contains("certificate"), "it is 127.0.0.1 and shows db.example: {misnamed}");
}

#[tokio::test]
async fn a_server_that_shows_its_own_name_passes_the_full_check() {
    let Some(secured) = start(&["127.0.0.1"]) else { return };
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", secured.server.url(), secured.ca.display());
    assert_eq!(connect(&url).await, Ok(true));
}

#[tokio::test]
async fn tls_that_is_asked_for_is_not_done_without() {
    let Some(server) = Setup::default().durability(Durability::Unsynced).start() else { return };
    assert_eq!(connect(&format!("{}?sslmode=prefer", server.url())).await, Ok(false));
    for mode in ["require", "verify-ca", "verify-full"] {
        let refused = connect(&format!("{}?sslmode={mode}", server.url())).await.unwrap_err();
        assert!(refused.contains("TLS"), "{mode}: {refused}");
    }
}
