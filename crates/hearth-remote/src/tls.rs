//! Whose certificates are trusted: the system's authorities and those that the settings add.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Authorities whose certificates are trusted.
#[derive(Clone, Debug)]
pub struct TlsRoots(RootCertStore);

/// Why an authority's file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the authority's certificate {path}: {cause}")]
pub struct CaError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub cause: String,
}

impl TlsRoots {
    /// Nobody.
    pub fn empty() -> Self {
        Self(RootCertStore::empty())
    }

    /// Whom the system trusts.
    pub fn system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a file of the system's certificate authorities can't be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!("the system has no certificate authorities: other servers' certificates can't be checked");
        }
        tracing::debug!(added, ignored, "certificate authorities of the system");
        Self(roots)
    }

    /// Trusts the authorities of a PEM file, too.
    pub fn add_file(&mut self, path: &Path) -> Result<(), CaError> {
        let failed = |cause: String| CaError { path: path.to_owned(), cause };
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
            self.0
                .add(certificate.map_err(|error| failed(error.to_string()))?)
                .map_err(|error| failed(error.to_string()))?;
            found += 1;
        }
        if found == 0 { Err(failed("no certificate in it".to_owned())) } else { Ok(()) }
    }

    /// Trusts an authority, too.
    pub fn add(&mut self, certificate: CertificateDer<'_>) -> Result<(), rustls::Error> {
        self.0.add(certificate)
    }

    pub(crate) fn store(&self) -> RootCertStore {
        self.0.clone()
    }

    pub(crate) fn client_config(self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.0)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
