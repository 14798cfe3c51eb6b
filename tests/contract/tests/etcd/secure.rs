//! etcd that wants to know who asks.
use std::path::PathBuf;

use etcd_client::{Client, Permission};
use kapell_cluster::JoinError;
use kapell_cluster_etcd::{EtcdOptions, EtcdTls, EtcdUser};
use kapell_tests_contract::cluster::{acquire, join, shows_nodes, shows_owner};
use kapell_tests_servers::{Etcd, EtcdTls as ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

use super::Reached;

/// An authority of its own, with certificates for a server and for clients.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer, dir: tempfile::tempdir().unwrap() }
    }

    fn ca(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// Certificate and key, as PEM.
    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn server(&self) -> ServerTls {
        let (certificate, key) = self.sign("etcd.test", ExtendedKeyUsagePurpose::ServerAuth);
        ServerTls {
            ca: self.write("ca.pem", &self.ca()),
            certificate: self.write("server.pem", &certificate),
            key: self.write("server.key", &key),
        }
    }
}

/// Both sides prove themselves; whoever cannot gets a reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_prove_both_sides() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let Some(etcd) = Etcd::start_with(1, Some(authority.server())) else { return };
    let client = authority.sign("node-a", ExtendedKeyUsagePurpose::ClientAuth);
    let with = |ca: Vec<u8>, identity, server_name: Option<&str>| {
        let options = Reached::by(etcd.endpoints()).0;
        let server_name = server_name.map(str::to_owned);
        Reached(EtcdOptions { tls: Some(EtcdTls { ca, identity, server_name }), ..options })
    };
    for server_name in [None, Some("etcd.test")] {
        let session = join(&with(authority.ca(), Some(client.clone()), server_name), "a").await;
        let epoch = acquire(&session, 1).await;
        shows_owner(&session, 1, Some(("a", epoch))).await;
        session.leave().await.unwrap();
    }
    let foreign = stranger.sign("node-a", ExtendedKeyUsagePurpose::ClientAuth);
    for (what, refused) in [
        ("an unknown authority", with(stranger.ca(), Some(client.clone()), None)),
        ("another name", with(authority.ca(), Some(client.clone()), Some("other.test"))),
        ("no certificate", with(authority.ca(), None, None)),
        ("a foreign certificate", with(authority.ca(), Some(foreign), None)),
    ] {
        let refused = refused.try_join("a", 0).await.err().expect(what);
        println!("{what}: {refused}");
        assert!(matches!(refused, JoinError::Unavailable { .. }), "{what}: {refused}");
    }
    let broken = with(b"no certificate".to_vec(), None, None).try_join("a", 0).await.err().unwrap();
    println!("broken: {broken}");
}

/// As the documentation says: a role for the prefix, and nothing else.
async fn set_up_users(etcd: &Etcd, prefix: &str) {
    let mut client = Client::connect(etcd.endpoints(), None).await.unwrap();
    client.user_add("root", "root", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("kapell", "secret", None).await.unwrap();
    client.role_add("kapell").await.unwrap();
    let all = Permission::read_write(prefix).with_prefix();
    client.role_grant_permission("kapell", all).await.unwrap();
    client.user_grant_role("kapell", "kapell").await.unwrap();
    client.auth_enable().await.unwrap();
}

/// A session lives with no more rights than its prefix, over a restart of etcd that forgets who showed a password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_rights_to_the_prefix_is_enough() {
    let Some(mut etcd) = Etcd::start(1) else { return };
    set_up_users(&etcd, "/kapell/test/").await;
    let user = |name: &str, password: &str| {
        let user = EtcdUser { name: name.to_owned(), password: password.to_owned() };
        Reached(EtcdOptions { user: Some(user), ..Reached::by(etcd.endpoints()).0 })
    };
    let reached = user("kapell", "secret");
    for (what, refused) in [
        ("a wrong password", user("kapell", "wrong")),
        ("nobody", Reached::by(etcd.endpoints())),
        ("elsewhere", Reached(EtcdOptions { prefix: "/other".to_owned(), ..reached.0.clone() })),
    ] {
        let refused = refused.try_join("a", 0).await.err().expect(what);
        println!("{what}: {refused}");
        assert!(matches!(refused, JoinError::Refused { .. }), "{what}: {refused}");
    }
    let (a, b) = (join(&reached, "a").await, join(&reached, "b").await);
    let epoch = acquire(&a, 1).await;
    shows_owner(&b, 1, Some(("a", epoch))).await;
    etcd.kill(0);
    etcd.start_again();
    let epoch = acquire(&a, 2).await;
    shows_owner(&b, 2, Some(("a", epoch))).await;
    b.leave().await.unwrap();
    shows_nodes(&a, &["a"]).await;
    assert_eq!(*a.lost().borrow(), None);
}
