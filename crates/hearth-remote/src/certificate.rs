//! Certificates for those who want to know why one is refused: what a server shows, and what is wrong with it.
//!
//! Whether a certificate is good is decided by the same verifier as for every other connection; here it is also looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;

use crate::tls::provider;

/// So many names of a certificate are told.
const NAMES: usize = 10;

/// What came of a handshake.
pub(crate) struct Handshake {
    /// The certificates that the server showed, its own first, each in words.
    pub(crate) chain: Vec<String>,
    /// What is wrong, and how to mend it.
    pub(crate) wrong: Option<(String, String)>,
}

/// Speaks TLS with whoever is at the other end, and looks at his certificates.
pub(crate) async fn shake(roots: &Arc<RootCertStore>, name: ServerName<'static>, tcp: TcpStream) -> Handshake {
    let broken = |error: String| Handshake {
        chain: Vec::new(),
        wrong: Some((error, "Trust an authority: the system's, or one named by `outbound.trusted_ca`.".to_owned())),
    };
    let verifier = match WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build() {
        Ok(verifier) => verifier,
        Err(error) => return broken(format!("no certificate can be checked: {error}")),
    };
    let looker = Arc::new(Looker { verifier, shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = match config {
        Ok(config) => config.dangerous().with_custom_certificate_verifier(looker.clone()).with_no_client_auth(),
        Err(error) => return broken(error.to_string()),
    };
    let wanted = name.to_str().into_owned();
    let outcome = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let shown = std::mem::take(&mut *looker.shown.lock().unwrap_or_else(PoisonError::into_inner));
    Handshake {
        chain: shown.iter().map(|certificate| in_words(certificate)).collect(),
        wrong: outcome.err().map(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            (error.to_string(), mend(cause, &wanted))
        }),
    }
}

/// How a handshake that failed is mended.
fn mend(error: Option<&Error>, wanted: &str) -> String {
    use CertificateError as Cert;
    let certificate = match error {
        Some(Error::InvalidCertificate(certificate)) => certificate,
        _ => return "That port must speak TLS; a proxy that speaks plain HTTP there is the usual cause.".to_owned(),
    };
    match certificate {
        Cert::NotValidForName | Cert::NotValidForNameContext { .. } => format!(
            "The certificate must name {wanted}. If another host answers for that name, let \
             /.well-known/matrix/server name it; with SRV records alone the certificate stays that of {wanted}."
        ),
        Cert::Expired | Cert::ExpiredContext { .. } => {
            "Its operator must renew the certificate, and have the server load it.".to_owned()
        }
        Cert::NotValidYet | Cert::NotValidYetContext { .. } => "Compare both servers' clocks.".to_owned(),
        // The second: an authority of the same name has another key.
        Cert::UnknownIssuer | Cert::BadSignature => {
            "The server must send the whole chain, with the certificates between its own and the \
             authority's (often a file named fullchain.pem). A private authority is trusted by `outbound.trusted_ca`."
                .to_owned()
        }
        _ => "Its operator must get another certificate.".to_owned(),
    }
}

/// Decides as always, and keeps what was shown.
#[derive(Debug)]
struct Looker {
    verifier: Arc<WebPkiServerVerifier>,
    shown: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|one| one.clone().into_owned());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// For which names, until when, and by whom.
fn in_words(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return "a certificate that can't be read".to_owned();
    };
    let mut names: Vec<String> = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(name_in_words).collect(),
        _ => Vec::new(),
    };
    let more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let of = match names.is_empty() {
        true => certificate.subject().to_string(),
        false => names.join(", "),
    };
    format!(
        "{of}, good until {}, issued by {}",
        date(certificate.validity().not_after.timestamp()),
        certificate.issuer()
    )
}

fn name_in_words(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
            let sixteen = || <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
            four.or_else(|_| sixteen()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// A time as people read it; httpdate knows no years after 9999.
pub(crate) fn date(seconds: i64) -> String {
    const LAST: u64 = 253_402_300_799;
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LAST));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}
