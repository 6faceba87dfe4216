//! What the tests of tunnels share.

use super::credential::Credential;

/// A key that opens nothing.
pub(super) fn credential() -> Credential {
    use crate::ssh::entropy::SystemEntropy;
    use crate::ssh::private_key::PrivateKey;

    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    let text = key.to_openssh("test", &mut SystemEntropy::default());
    Credential::read(&text, None).unwrap()
}
