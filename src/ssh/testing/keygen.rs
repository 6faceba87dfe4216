//! For tests: the installed ssh-keygen as an oracle, a software security key,
//! repeatable randomness.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::ssh::entropy::Entropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{KeyType, PublicKey, SignatureAlgorithm};
use crate::ssh::wire::{Put, Reader};

/// Types and sizes ssh-keygen makes without a security key.
pub(crate) const KINDS: [(&str, &str); 5] =
    [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")];

/// Repeatable "randomness".
pub(crate) struct Counter(pub(crate) u64);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(1);
            *byte = digest(&SHA256, &self.0.to_be_bytes()).as_ref()[0];
        }
    }
}

/// A directory that goes away with the test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("keyway-keygen-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn read_bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Readable by the owner only, as ssh-keygen wants private keys.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), content).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    /// Runs ssh-keygen here; its output, which must be a success.
    pub(crate) fn keygen(&self, args: &[&str]) -> String {
        self.keygen_with(args, b"").unwrap_or_else(|error| panic!("ssh-keygen {args:?}: {error}"))
    }

    /// The same with bytes on stdin; its complaint if it fails.
    pub(crate) fn keygen_with(&self, args: &[&str], stdin: &[u8]) -> Result<String, String> {
        self.write("stdin", stdin);
        let input = std::fs::File::open(self.path("stdin")).unwrap();
        let output = Command::new("ssh-keygen")
            .args(args)
            .current_dir(&self.0)
            .stdin(input)
            .output()
            .expect("ssh-keygen is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(text) } else { Err(text + &error) }
    }

    /// Makes `name` and `name.pub`; reads the private one.
    pub(crate) fn new_key(&self, name: &str, kind: &str, bits: &str) -> PrivateKey {
        self.keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-C", "a comment", "-f", name]);
        PrivateKey::from_openssh(&self.read(name)).unwrap().0
    }

    /// Has ssh-keygen sign `options` over `name.pub` with CA `ca`; the line of the certificate.
    pub(crate) fn certify(&self, ca: &str, name: &str, options: &[&str]) -> String {
        let public = format!("{name}.pub");
        self.keygen(&[&["-q", "-s", ca, "-I", "key id"], options, &[&public]].concat());
        self.read(&format!("{name}-cert.pub"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(AsRef::<Path>::as_ref(&self.0));
    }
}

/// A detached signature of `ssh-keygen -Y` (OpenSSH PROTOCOL.sshsig).
pub(crate) struct SshSig {
    pub(crate) key: Vec<u8>,
    pub(crate) namespace: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

const SSHSIG_BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const SSHSIG_END: &str = "\n-----END SSH SIGNATURE-----\n";

impl SshSig {
    pub(crate) fn parse(armored: &str) -> Self {
        let body =
            armored.trim().trim_start_matches(SSHSIG_BEGIN).trim_end_matches(SSHSIG_END.trim());
        let blob = STANDARD.decode(body.split_whitespace().collect::<String>()).unwrap();
        let mut reader = Reader::new(&blob);
        assert_eq!(reader.bytes(6).unwrap(), b"SSHSIG");
        assert_eq!(reader.u32().unwrap(), 1);
        let key = reader.string().unwrap().to_vec();
        let namespace = reader.string().unwrap().to_vec();
        let _reserved = reader.string().unwrap();
        assert_eq!(reader.string().unwrap(), b"sha512");
        let signature = reader.string().unwrap().to_vec();
        reader.end().unwrap();
        Self { key, namespace, signature }
    }

    pub(crate) fn armor(&self) -> String {
        let mut blob = Vec::new();
        blob.put_bytes(b"SSHSIG");
        blob.put_u32(1);
        blob.put_string(&self.key);
        blob.put_string(&self.namespace);
        blob.put_string(b"");
        blob.put_string(b"sha512");
        blob.put_string(&self.signature);
        let encoded = STANDARD.encode(&blob);
        let lines: Vec<_> =
            encoded.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{SSHSIG_BEGIN}{}{SSHSIG_END}", lines.join("\n"))
    }

    /// What is really signed for `message`.
    pub(crate) fn signed_data(namespace: &[u8], message: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        data.put_bytes(b"SSHSIG");
        data.put_string(namespace);
        data.put_string(b"");
        data.put_string(b"sha512");
        data.put_string(digest(&SHA512, message).as_ref());
        data
    }
}

/// A security key in software: an Ed25519 or P-256 key that signs what a real one would.
pub(crate) struct SecurityKey {
    pub(crate) public: PublicKey,
    inner: PrivateKey,
    application: &'static str,
}

impl SecurityKey {
    pub(crate) fn new(inner: PrivateKey, application: &'static str) -> Self {
        let key_type = match inner.public().key_type() {
            KeyType::Ed25519 => KeyType::SkEd25519,
            KeyType::EcdsaP256 => KeyType::SkEcdsaP256,
            KeyType::EcdsaP384
            | KeyType::EcdsaP521
            | KeyType::Rsa
            | KeyType::SkEd25519
            | KeyType::SkEcdsaP256 => panic!("no security key signs so"),
        };
        let mut plain = Reader::new(inner.public().blob());
        plain.string().unwrap();
        let mut blob = Vec::new();
        blob.put_string(key_type.name().as_bytes());
        blob.put_bytes(plain.rest());
        blob.put_string(application.as_bytes());
        Self { public: PublicKey::parse(&blob).unwrap(), inner, application }
    }

    pub(crate) fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::from_name(self.public.key_type().name()).unwrap()
    }

    pub(crate) fn sign(&self, flags: u8, counter: u32, data: &[u8]) -> Vec<u8> {
        let mut assertion = digest(&SHA256, self.application.as_bytes()).as_ref().to_vec();
        assertion.push(flags);
        assertion.put_u32(counter);
        assertion.put_bytes(digest(&SHA256, data).as_ref());
        let plain = self.inner.sign(self.inner.algorithms()[0], &assertion).unwrap();
        let mut reader = Reader::new(&plain);
        reader.string().unwrap();
        let mut blob = Vec::new();
        blob.put_string(self.algorithm().name().as_bytes());
        blob.put_bytes(reader.rest());
        blob.push(flags);
        blob.put_u32(counter);
        blob
    }
}

/// Every truncation of `sample`, then every byte of it changed in three ways.
pub(crate) fn mutations(sample: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cuts = (0..sample.len()).map(|len| sample[..len].to_vec());
    let flips = (0..sample.len()).flat_map(move |at| {
        [0x01, 0x80, 0xff].map(|mask| {
            let mut changed = sample.to_vec();
            changed[at] ^= mask;
            changed
        })
    });
    cuts.chain(flips)
}
