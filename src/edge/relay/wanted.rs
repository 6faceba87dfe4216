//! What a session at an agent has to ask an edge for.

/// What a session needs of whoever holds the host keys.
pub enum Wanted<'a> {
    /// A signature for the client's key exchange.
    Signature {
        /// The host key algorithm's name.
        algorithm: &'static str,
        /// What is shown under it.
        host_key: &'a [u8],
        /// Of the exchange.
        hash: Box<[u8]>,
    },
    /// Signatures that prove host keys, as the client asks for them (OpenSSH PROTOCOL §2.5).
    Proof(Box<[u8]>),
}

/// Which [`Wanted`] an answer is to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Want {
    /// [`Wanted::Signature`].
    Signature,
    /// [`Wanted::Proof`].
    Proof,
}

impl Wanted<'_> {
    /// Which it is.
    #[must_use]
    pub const fn want(&self) -> Want {
        match self {
            Self::Signature { .. } => Want::Signature,
            Self::Proof(_) => Want::Proof,
        }
    }
}
