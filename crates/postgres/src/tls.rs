//! TLS to PostgreSQL.
//!
//! Owns: what `sslmode` and its companions mean. Never: trusts more than they say: an unverified certificate only where
//! `prefer` or `require` come without `sslrootcert`, which is what these words mean everywhere else.
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::target::UrlError;

/// What a URL says about TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsSettings {
    pub(crate) mode: Mode,
    root_cert: Option<String>,
    client_cert: Option<String>,
    client_key: Option<String>,
}

/// The values of `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// How a connection is made.
#[derive(Clone)]
pub(crate) enum Tls {
    None,
    Rustls(MakeRustlsConnect),
}

impl TlsSettings {
    /// Whether it was one of ours.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<bool, UrlError> {
        match name {
            "sslmode" => self.mode = Mode::parse(value)?,
            "sslrootcert" => self.root_cert = Some(value.to_owned()),
            "sslcert" => self.client_cert = Some(value.to_owned()),
            "sslkey" => self.client_key = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Mode {
    fn parse(value: &str) -> Result<Mode, UrlError> {
        Ok(match value {
            "disable" => Mode::Disable,
            "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            other => {
                let words = "disable, prefer, require, verify-ca or verify-full";
                return Err(UrlError::new(format!("sslmode={other}: write {words}")));
            }
        })
    }

    /// What the driver has to hold to; the rest is what a certificate must show.
    pub(crate) fn on_the_wire(self) -> SslMode {
        match self {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }
}

impl Tls {
    pub(crate) fn new(settings: &TlsSettings) -> Result<Tls, UrlError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match (settings.mode, &settings.root_cert) {
            (Mode::Disable, _) => return Ok(Tls::None),
            (Mode::Prefer | Mode::Require, None) => Arc::new(AnyCertificate(provider.clone())),
            (Mode::Prefer | Mode::Require | Mode::VerifyCa, _) => {
                Arc::new(AnyName(web_pki(settings, &provider)?))
            }
            (Mode::VerifyFull, _) => web_pki(settings, &provider)?,
        };
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| UrlError::new(format!("TLS: {error}")))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match (&settings.client_cert, &settings.client_key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let unusable = |error| UrlError::new(format!("sslcert={cert}: {error}"));
                builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(unusable)?
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(UrlError::new("sslcert and sslkey are given together or not at all"));
            }
        };
        Ok(Tls::Rustls(MakeRustlsConnect::new(config)))
    }
}

fn web_pki(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, UrlError> {
    let mut roots = RootCertStore::empty();
    match &settings.root_cert {
        Some(file) => {
            for certificate in certificates(file)? {
                let unusable = |error| UrlError::new(format!("sslrootcert={file}: {error}"));
                roots.add(certificate).map_err(unusable)?;
            }
        }
        None => {
            // What cannot be read of them is not trusted; without any the next line says so.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|error| {
        UrlError::new(format!("no certificate to trust: {error} (hint: name one with sslrootcert=FILE)"))
    })
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, UrlError> {
    let read =
        CertificateDer::pem_file_iter(Path::new(file)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(UrlError::new(format!("{file} holds no certificate in PEM"))),
        Ok(found) => Ok(found),
        Err(error) => Err(UrlError::new(format!("{file}: {error}"))),
    }
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, UrlError> {
    PrivateKeyDer::from_pem_file(Path::new(file)).map_err(|error| UrlError::new(format!("{file}: {error}")))
}

/// Encrypted, and that is all: the server need not show who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Signed by somebody who is trusted, whatever name it bears.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, intermediates, name, stapled, now) {
            // The name is looked at after everything else.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
