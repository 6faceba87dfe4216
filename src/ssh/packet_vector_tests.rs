//! Known answers. The AES packets were made with OpenSSL 3 and Python's `hmac`, under the keys and
//! counter of NIST SP 800-38A F.5, so that their keystream is also the one printed there.

use super::*;

/// SP 800-38A F.5: keys of AES-128, -192 and -256.
const AES_KEYS: [&str; 3] = [
    "2b7e151628aed2a6abf7158809cf4f3c",
    "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
];
/// SP 800-38A F.5: first counter block, first plaintext, and the three ciphertexts of it.
const CTR_IV: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
const CTR_PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
const CTR_CIPHER: [&str; 3] = [
    "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
    "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94",
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5",
];
const SEQ: u32 = 0x0102_0304;
const PAYLOAD: &[u8] = b"\x5eattack at dawn";

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn keys_of(suite: Suite, key: &str, iv: &str) -> Keys {
    let mut keys = Keys::zero(suite);
    let (key, iv) = (hex(key), hex(iv));
    assert_eq!((key.len(), iv.len()), (suite.cipher.key_len(), suite.cipher.iv_len()));
    let [to_iv, to_key, mac_key] = keys.parts_mut();
    to_key.copy_from_slice(&key);
    to_iv.copy_from_slice(&iv);
    Counting(0).fill(mac_key);
    keys
}

/// Seals `payload` and compares, then opens what it compared with.
fn check(keys: impl Fn() -> Keys, seq: u32, payload: &[u8], padding: u8, packets: &[String]) {
    let mut sealer = Sealer::from_keys(keys(), seq);
    let mut opener = Opener::from_keys(keys(), seq);
    for expected in packets {
        sealer.padding = Padding::empty();
        let mut packet = Vec::new();
        sealer.seal(payload, &mut Counting(padding), &mut packet).unwrap();
        assert_eq!(packet, hex(expected));
        assert_eq!(opened(&mut opener, &mut packet), payload);
    }
}

#[test]
fn chacha20_poly1305_seals_the_packet_of_its_specification() {
    // draft-ietf-sshm-chacha20-poly1305, appendix A.
    let suite = Suite::new(Cipher::Chacha20Poly1305, None).unwrap();
    let keys = || {
        keys_of(
            suite,
            "8bbff6855fc102338c373e73aac0c914f076a905b2444a32eecaffeae22becc5\
             e9b7a7a5825a8249346ec1c28301cf394543fc7569887d76e168f37562ac0740",
            "",
        )
    };
    let payload = hex(
        "5e00000000000000384c6f72656d20697073756d20646f6c6f722073697420616d65742c20636f6e7365637465\
         747572206164697069736963696e6720656c6974",
    );
    let expected = hex(
        "2c3ecce4a5bc05895bf07a7ba956b6c68829ac7c83b780b7000ecde745afc705bbc378ce03a280236b87b53bed58\
         39662302b164b6286a48cd1e097138e3cb909b8b2b829dd18d2a35ff82d995349e855bf02c298ef775f2d1a7e8b8",
    );
    let mut packet = Vec::new();
    Sealer::from_keys(keys(), 7)
        .seal(&payload, &mut Given(hex("4e43e804dc6c")), &mut packet)
        .unwrap();
    assert_eq!(packet, expected);
    assert_eq!(opened(&mut Opener::from_keys(keys(), 7), &mut packet), payload);
}

#[test]
fn aes_gcm_packets_match_and_the_counter_passes_its_wrap_without_a_carry() {
    // Fixed field cafebabe; the counter goes ..fffe, ..ffff, 0.
    let iv = "cafebabefffffffffffffffe";
    for (cipher, key, packets) in [
        (
            Cipher::Aes128Gcm,
            AES_KEYS[0],
            [
                "00000020d1002c26170505b77f85981370434eaa95920ef4d3a6d3ae1eca16343487c62a6837dfe3b1444639fad6cc05b0167df8",
                "00000020affccf3c8c28db4b353a364a353be29bfc4cb13861b510aa5def44b8f9304295faf02d6abd089703763c79c354e3163b",
                "00000020014bce2cd8bde8ad7289ef1055565a158ed2373021e4b2e2a5214283612564daab58922499638142fc28f3037aff50eb",
            ],
        ),
        (
            Cipher::Aes256Gcm,
            AES_KEYS[2],
            [
                "000000203da5120b47e40db1b381442150ab31249f7b619bff3044304b34dbddf11d8d48d66c4219e246803c01bf81c4a7dce14e",
                "00000020c7b9cf53bf679b7be63a01edf382d38a37c494d2ff3e827e3819f701a48fbd6e8aa1a1742b3d5e39f4dd25ba5c008c39",
                "0000002016fc7a4647574a03dcc897e95e2a8958ae0bb307ef4c1d05ad94e670eb4e5423c0e672dbf6bdd2186fa969d98b2474f2",
            ],
        ),
    ] {
        let suite = Suite::new(cipher, None).unwrap();
        check(|| keys_of(suite, key, iv), SEQ, PAYLOAD, 0xa0, &packets.map(str::to_owned));
    }
}

#[test]
fn aes_ctr_packets_match_under_every_key_length_and_mac() {
    let etm = [
        "00000020fcd2be07ec011fdbd2b362558effd68a968ade9fc3d6f7c4b009dd7c50fddd01",
        "0000002061234cb24d73e05f86770e68e98c0e4f078f1118b000f0d4e3d207c11dccae6a",
        "000000201b811c852d7675587efbff35ac01b26cfacfcb3ef7c4bfa1fc9a2c9723c8d53b",
    ];
    let clear = [
        "ec8cdf6f943e1dc486b3751ecaffd5c4524a0b52c7d2f3c0bc05d17054f9d905",
        "717d2dda354ce240d2771923ad8c0d01c34fc4d5b404f4d0efde0bcd19c8aa6e",
        "0bdf7ded554977472afbe87ee801b1223e0f1ef3f3c0bba5f096209b27ccd13f",
    ];
    let etm_tags = [
        (
            "382b5f55cea2cd5207d2f2e7fcfb2797762e405b19e8c1601a5349321d69e15e",
            "4db9ae60e2e91e76bd1dd10eed20726c0ab533e2425d28d258a55fe2a080af7c32868f3c43e34bab100e3a457d925da63ac2d07cc5ce59fabfb983a464634f97",
        ),
        (
            "8413a5be59c4fd26869e0e4bd566c88d10b37067634c6546c286ab854ce221b2",
            "fd949336358918ad998d46baf8684ca2871994db261b541f1da5c3186c407ed5e1a233d810363fb838043b72c10d7d2e447a3b56c0b99a7a532355e79e7db233",
        ),
        (
            "08e199469ef7d79cd07e1cd98abbc0ec35d7a9a368506d5f2b3002fdd8d82a31",
            "feef6a74a541dda466110b7ef20ef95ff9ed4ca7f1f534cc295f87f5e9f3df5a0a4caf06187753caa6efa8e7c135cdf3bd9f7ce565b75553a4659c2d2905a10b",
        ),
    ];
    // Over the plaintext: the same whatever the cipher.
    let clear_tags = (
        "705bb0bab1504035e3f3585f190e8b884b7c6c0ac957f5a929eb0a697da906d6",
        "d9a12361ec1bed48dda86dd5d791de3b8f99b8bd7fd232dfafee5932f4db099a566d80b054cc407f98ffcfff0dab9d8462fd18cd1cc102b698d37066dd8f3835",
    );
    for (at, cipher) in
        [Cipher::Aes128Ctr, Cipher::Aes192Ctr, Cipher::Aes256Ctr].into_iter().enumerate()
    {
        for (mac, packet, tag) in [
            (Mac::Sha256Etm, etm[at], etm_tags[at].0),
            (Mac::Sha512Etm, etm[at], etm_tags[at].1),
            (Mac::Sha256, clear[at], clear_tags.0),
            (Mac::Sha512, clear[at], clear_tags.1),
        ] {
            let suite = Suite::new(cipher, Some(mac)).unwrap();
            let packet = format!("{packet}{tag}");
            check(|| keys_of(suite, AES_KEYS[at], CTR_IV), SEQ, PAYLOAD, 0xa0, &[packet]);
        }
    }
}

#[test]
fn aes_ctr_keystream_is_the_one_of_nist_sp_800_38a() {
    for (at, cipher) in
        [Cipher::Aes128Ctr, Cipher::Aes192Ctr, Cipher::Aes256Ctr].into_iter().enumerate()
    {
        let suite = Suite::new(cipher, Some(Mac::Sha256)).unwrap();
        let mut sealer = Sealer::from_keys(keys_of(suite, AES_KEYS[at], CTR_IV), 0);
        // Encrypt-and-MAC encrypts from the first byte: 4 + 1 + 15 + 12.
        let packet = sealed(&mut sealer, PAYLOAD);
        let mut clear = Vec::new();
        Sealer::from_keys(Keys::zero(suite), 0)
            .seal(PAYLOAD, &mut Counting(0x40), &mut clear)
            .unwrap();
        opened(&mut Opener::from_keys(Keys::zero(suite), 0), &mut clear);
        let (plain, cipher) = (hex(CTR_PLAIN), hex(CTR_CIPHER[at]));
        assert_eq!(packet.len(), 64);
        for byte in 0..32 {
            assert_eq!(packet[byte] ^ clear[byte], plain[byte] ^ cipher[byte], "byte {byte}");
        }
    }
}

#[test]
fn the_ctr_counter_is_128_bit_and_wraps() {
    let suite = Suite::new(Cipher::Aes128Ctr, Some(Mac::Sha256Etm)).unwrap();
    let keys = || keys_of(suite, AES_KEYS[0], "ffffffffffffffffffffffffffffffff");
    let packets = [
        "000000209aace7753696e59f2951083a5b1fddc2dd56c9afbe1d3f1496eb5aec15b6fac026c4af8bf9c77f22965a2f709a929721f61be2ffa0ed3e1dee864e0589e45e85",
        "00000020474c1c3440d0ddd48e951299a31318a8379e8c50ecdc44a5d7be9e9b935fb1264e858c2bb3e1bada4fd3850a721154e290c98a73e0a4fbc063c00f8fbecfdbfe",
    ];
    check(keys, SEQ, PAYLOAD, 0xa0, &packets.map(str::to_owned));
}
