//! Who follows. The holder of a key signs what both ends of this one TLS connection know and
//! nobody else can (RFC 8446 §7.5): what is shown to another server, or overheard, is of no use.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::{ConnectionCommon, ProtocolVersion};

use crate::ssh::keytype::SignatureAlgorithm;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{Fingerprint, PublicKey};

const EXPORTER_BYTES: usize = 32;
const LABEL: &[u8] = b"EXPORTER-keyway-feed";
/// Stands before what is signed: the key signs for SSH too, and nothing there begins so.
const SIGNED: &[u8] = b"keyway feed 1\0";
const SCHEME: &str = "Keyway";

/// What both ends of a connection know.
pub(in crate::control) type Exporter = [u8; EXPORTER_BYTES];

/// Of a connection; nothing below TLS 1.3, where it may not be of this connection alone.
pub(in crate::control) fn exporter<D>(connection: &ConnectionCommon<D>) -> Option<Exporter> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection.export_keying_material([0; EXPORTER_BYTES], LABEL, None).ok()
}

fn signed(exporter: &Exporter) -> Vec<u8> {
    [SIGNED, exporter].concat()
}

/// What the holder of `identity` shows in `Authorization`.
pub(in crate::control) fn authorization(
    identity: &PrivateKey,
    exporter: &Exporter,
) -> Option<HeaderValue> {
    let signature = identity.sign(SignatureAlgorithm::Ed25519, &signed(exporter)).ok()?;
    let (key, signature) = (STANDARD.encode(identity.public().blob()), STANDARD.encode(signature));
    HeaderValue::try_from(format!("{SCHEME} {key}:{signature}")).ok()
}

/// Whose key it is that was shown so, if its holder is at the other end.
pub(in crate::control) fn proved(
    shown: Option<&HeaderValue>,
    exporter: &Exporter,
) -> Option<Fingerprint> {
    let (scheme, shown) = shown?.to_str().ok()?.split_once(' ')?;
    let (key, signature) = shown.split_once(':').filter(|_| scheme == SCHEME)?;
    let key = PublicKey::parse(&STANDARD.decode(key).ok()?).ok()?;
    let signature = STANDARD.decode(signature).ok()?;
    key.verify(SignatureAlgorithm::Ed25519, &signed(exporter), &signature).ok()?;
    Some(key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::entropy::SystemEntropy;

    #[test]
    fn a_proof_is_good_for_its_own_connection_and_key_alone() {
        let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
        let other = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
        let shown = authorization(&key, &[7; 32]).unwrap();
        assert_eq!(proved(Some(&shown), &[7; 32]), Some(key.public().fingerprint()));
        assert_eq!(proved(Some(&shown), &[8; 32]), None);
        assert_eq!(proved(None, &[7; 32]), None);
        let text = shown.to_str().unwrap();
        let forged = text.replace(
            &STANDARD.encode(key.public().blob()),
            &STANDARD.encode(other.public().blob()),
        );
        assert_ne!(forged, text);
        for wrong in [&forged, &text.replace("Keyway", "Bearer"), "", "Keyway", "Keyway :", "é"] {
            let wrong = HeaderValue::from_str(wrong).unwrap();
            assert_eq!(proved(Some(&wrong), &[7; 32]), None, "{wrong:?}");
        }
    }
}
