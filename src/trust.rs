//! Which servers are trusted over TLS: those of the CAs that the system trusts; and where the
//! operator named somebody, those of a CA of theirs, and the very server whose certificate they
//! named.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use hyper::Uri;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    crypto,
};

/// Where systems keep the CAs that they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A server behind TLS.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: ServerName<'static>,
    /// `host:port`, as it was written.
    pub(crate) authority: String,
    pub(crate) port: u16,
}

/// The server of `https://HOST` or `https://HOST:PORT`; nothing if it is any other URL.
pub(crate) fn server(url: &str) -> Option<Server> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let port = authority.port_u16().unwrap_or(443);
    Some(Server { name, authority: authority.to_string(), port })
}

/// For connections to servers that the certificates in the file `ca` speak for; without one, those
/// that the system trusts.
///
/// # Errors
/// Why nobody could be trusted, in words.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let bundle = match ca {
        Some(file) => file,
        None => BUNDLES.map(Path::new).into_iter().find(|file| file.exists()).ok_or_else(|| {
            "this system has no list of trusted CAs; name one with --ca or `ca`".to_owned()
        })?,
    };
    let shown = bundle.display();
    let pem = fs::read(bundle).map_err(|error| format!("{shown}: {error}"))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    let mut roots = RootCertStore::empty();
    let _unusable = roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(format!("{shown} holds no certificate in PEM"));
    }
    let no_tls = |error: &dyn Display| format!("no TLS: {error}");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| no_tls(&error))?;
    let config = if ca.is_some() {
        let by_ca = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let named = Named { by_ca: by_ca.map_err(|error| no_tls(&error))?, named: certificates };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(named))
    } else {
        builder.with_root_certificates(roots)
    };
    Ok(config.with_no_client_auth())
}

/// Why a server was not believed, or is no TLS server, in words.
pub(crate) fn fault(error: &io::Error) -> String {
    let found = error.get_ref().and_then(|found| found.downcast_ref::<Error>());
    match found {
        Some(Error::InvalidCertificate(
            // A certificate that is its own CA and was not named comes as one of these.
            CertificateError::UnknownIssuer | CertificateError::Other(_),
        )) => "nobody who is trusted here speaks for its certificate".to_owned(),
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        })) => format!(
            "its certificate is not for {}, but for {}",
            expected.to_str(),
            presented.join(", ")
        ),
        _ => error.to_string(),
    }
}

/// Trusts what the CAs among the named certificates signed, and the named ones themselves: a
/// server's own certificate, made by `openssl req -x509`, says that it is a CA's, and by the rules
/// of the web no server's then.
#[derive(Debug)]
struct Named {
    by_ca: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_ca = self.by_ca.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let Err(fault) = by_ca else { return by_ca };
        // Dates are looked at before whose certificate it is: what has expired has another fault.
        let not_of_a_ca = matches!(
            fault,
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))
        );
        if !not_of_a_ca || !self.named.iter().any(|named| named == end_entity) {
            return Err(fault);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_ca.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_ca.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_ca.supported_verify_schemes()
    }
}
