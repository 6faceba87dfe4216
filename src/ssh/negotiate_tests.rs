//! Tests of `negotiate`: pairs of lists against the rule of RFC 4253 §7.1, written a second time.

use super::*;
use crate::ssh::testing::Seeded;

const HOST_KEYS: [HostKeyAlgorithm; 3] = [
    HostKeyAlgorithm { signature: SignatureAlgorithm::Ed25519, certificate: true },
    HostKeyAlgorithm { signature: SignatureAlgorithm::Ed25519, certificate: false },
    HostKeyAlgorithm { signature: SignatureAlgorithm::RsaSha512, certificate: false },
];

/// One side's lists.
#[derive(Clone, Debug)]
struct Lists {
    methods: Vec<Method>,
    host_keys: Vec<HostKeyAlgorithm>,
    ciphers: Vec<Cipher>,
    macs: Vec<Mac>,
}

impl Lists {
    fn random(random: &mut Seeded) -> Self {
        Self {
            methods: sample(random, &Method::ALL),
            host_keys: sample(random, &HOST_KEYS),
            ciphers: sample(random, &Cipher::ALL),
            macs: sample(random, &Mac::ALL),
        }
    }

    fn offer(&self, role: Role) -> AlgorithmOffer<'_> {
        AlgorithmOffer {
            role,
            methods: &self.methods,
            host_keys: &self.host_keys,
            ciphers: &self.ciphers,
            macs: &self.macs,
            first: true,
        }
    }
}

/// A random part of `all` in random order.
fn sample<T: Copy>(random: &mut Seeded, all: &[T]) -> Vec<T> {
    let mut left = all.to_vec();
    let mut out = Vec::new();
    for _ in 0..random.below(all.len().saturating_add(1)) {
        out.push(left.swap_remove(random.below(left.len())));
    }
    out
}

/// RFC 4253 §7.1: the first of the client's names that the server has too.
fn chosen<T: Copy + PartialEq>(client: &[T], server: &[T]) -> Option<T> {
    client.iter().copied().find(|name| server.contains(name))
}

#[test]
fn both_sides_agree_on_the_clients_first_name_that_the_server_has() {
    let mut random = Seeded(1);
    let (mut agreed, mut failed) = (0, 0);
    for _ in 0..20_000 {
        let (client, server) = (Lists::random(&mut random), Lists::random(&mut random));
        let (client_offer, server_offer) = (client.offer(Role::Client), server.offer(Role::Server));
        let (to_server, to_client) = (client_offer.kexinit([1; 16]), server_offer.kexinit([2; 16]));
        let at_server = server_offer.agree(&KexInit::parse(&to_server).unwrap());
        let at_client = client_offer.agree(&KexInit::parse(&to_client).unwrap());
        let cipher = chosen(&client.ciphers, &server.ciphers);
        let mac = chosen(&client.macs, &server.macs);
        let suite = cipher.and_then(|cipher| Suite::new(cipher, mac));
        let wanted = (
            chosen(&client.methods, &server.methods),
            chosen(&client.host_keys, &server.host_keys),
            suite,
        );
        match (&at_server, &at_client, wanted) {
            (Ok(s), Ok(c), (Some(method), Some(host_key), Some(suite))) => {
                agreed += 1;
                for side in [s, c] {
                    assert_eq!((side.method, side.host_key), (method, host_key));
                    assert_eq!((side.to_server, side.to_client), (suite, suite));
                    assert!(side.strict && !side.skip_guess);
                }
                assert!(s.ext_info);
            }
            (Err(Fault::NoCommon(_)), Err(Fault::NoCommon(_)), _) => {
                assert!(wanted.0.is_none() || wanted.1.is_none() || wanted.2.is_none());
                failed += 1;
            }
            other => panic!("{client:?} {server:?} -> {other:?}"),
        }
    }
    assert!(agreed > 1000 && failed > 1000, "{agreed} {failed}");
}

#[test]
fn a_client_that_also_offers_compression_gets_none_and_one_that_insists_is_refused() {
    let lists = Lists {
        methods: Method::ALL.to_vec(),
        host_keys: HOST_KEYS.to_vec(),
        ciphers: Cipher::ALL.to_vec(),
        macs: Mac::ALL.to_vec(),
    };
    let offer = lists.offer(Role::Server);
    let kexinit = lists.offer(Role::Client).kexinit([0; 16]);
    let mut theirs = KexInit::parse(&kexinit).unwrap();
    theirs.compression_to_server = "zlib@openssh.com,none";
    assert!(offer.agree(&theirs).is_ok());
    theirs.compression_to_server = "zlib@openssh.com";
    assert_eq!(offer.agree(&theirs), Err(Fault::NoCommon("compression")));
}

#[test]
fn a_guess_is_wrong_unless_both_first_names_are_the_same() {
    let lists = Lists {
        methods: Method::ALL.to_vec(),
        host_keys: HOST_KEYS.to_vec(),
        ciphers: Cipher::ALL.to_vec(),
        macs: Mac::ALL.to_vec(),
    };
    let offer = lists.offer(Role::Server);
    let kexinit = lists.offer(Role::Client).kexinit([0; 16]);
    let mut theirs = KexInit::parse(&kexinit).unwrap();
    theirs.guess_follows = true;
    assert!(!offer.agree(&theirs).unwrap().skip_guess);
    theirs.methods = "curve25519-sha256,mlkem768x25519-sha256";
    assert!(offer.agree(&theirs).unwrap().skip_guess);
    theirs.methods = "mlkem768x25519-sha256";
    theirs.host_keys = "ssh-ed25519";
    assert!(offer.agree(&theirs).unwrap().skip_guess);
}

#[test]
fn a_kexinit_cut_anywhere_or_with_bytes_behind_is_refused() {
    let lists = Lists::random(&mut Seeded(2));
    let whole = lists.offer(Role::Client).kexinit([3; 16]);
    for cut in 0..whole.len() {
        assert!(KexInit::parse(&whole[..cut]).is_err(), "{cut}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(KexInit::parse(&longer), Err(Malformed::Trailing));
}

#[test]
fn nothing_weaker_than_the_design_is_ever_offered() {
    let all = Algorithms::default();
    let lists = Lists {
        methods: all.methods,
        host_keys: HOST_KEYS.to_vec(),
        ciphers: all.ciphers,
        macs: all.macs,
    };
    let kexinit = lists.offer(Role::Server).kexinit([0; 16]);
    let text = String::from_utf8_lossy(&kexinit);
    for weak in ["sha1", "cbc", "ssh-rsa,", "ssh-dss", "diffie-hellman", "md5", "3des", "arcfour"] {
        assert!(!text.contains(weak), "{weak}");
    }
}
