//! Tests of a server behind TLS: whom it shows a token, and whom it is not trusted by.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use super::testing::{Said, Scratch, Sitting, refusing, say_with};
use super::*;

/// A CA that signed one certificate, for `localhost`, until 2120.
const CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBWzCCAQCgAwIBAgIUEjVaQkGIH+kAe8RiKNhoGvisooEwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHdGVzdCBDQTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAw
MDAwMFowEjEQMA4GA1UEAwwHdGVzdCBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABLZX7QuKbQC+W3V5Es2iL/ebHpd/zqL/fF3/wffwR+eajhCrUse9La+ZORLf
RSFm1zGHuWYLxW3bt6ts2G1xDrujMjAwMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0O
BBYEFIi+BZYgQpBb6hjH95yII0mVOrCDMAoGCCqGSM49BAMCA0kAMEYCIQCGPfsr
b6aAFdnDEVmSPi7T4gKeJbctxhvMrgrqf7U0dAIhAKCyK1na/oTwwcxIINZwQ+UY
JMHM6jDF/r/Lpxv445sr
-----END CERTIFICATE-----
";
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBlzCCATygAwIBAgIUSgIYpLiHqmwMJ1+77q+HkBF4NRowCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHdGVzdCBDQTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAw
MDAwMFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEMMCMi7eDuOpoO3k7l09IZS0WrYVgH1xa5c7f8KIYOQoGfwwyQyO6ZAnC
yxeDQhYeiwHQFxYl2mlLAtnlibIo86NsMGowDAYDVR0TAQH/BAIwADAaBgNVHREE
EzARgglsb2NhbGhvc3SHBH8AAAEwHQYDVR0OBBYEFN/4AnrOaICu7F+4UM6tm1IE
OlYbMB8GA1UdIwQYMBaAFIi+BZYgQpBb6hjH95yII0mVOrCDMAoGCCqGSM49BAMC
A0kAMEYCIQDGWqRmjDJkTcQDAOz/YoQWJufG5AsuQ96r+GIaLjp5EgIhAJNtailP
X/tSO7sMS4u0/5dx7Ia7OK0eIf7plVEdSJri
-----END CERTIFICATE-----
";
/// Of no worth to anybody.
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgxAa6lj2aJ/HHZIPx
2R2f3DEicovBKgnuBWiev1j62ZmhRANCAAQwwIyLt4O46mg7eTuXT0hlLRathWAf
XFrlzt/wohg5CgZ/DDJDI7pkCcLLF4NCFh6LAdAXFiXaaUsC2eWJsijz
-----END PRIVATE KEY-----
";

fn serve() -> (SocketAddr, JoinHandle<Option<String>>) {
    serve_as(CERTIFICATE, KEY)
}

/// Answers one connection with an empty list; gives the request, or nothing if there was none.
fn serve_as(certificate: &str, key: &str) -> (SocketAddr, JoinHandle<Option<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            request.push(byte[0]);
        }
        let body = r#"{"items":[],"next":null}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
        stream.conn.send_close_notify();
        let _ = stream.flush();
        String::from_utf8(request).ok()
    });
    (address, served)
}

fn list(url: &str, token: &str, ca: &str) -> Said {
    let arguments =
        ["user", "list", "--output", "json", "--server", url, "--token-file", token, "--ca", ca];
    say_with(&arguments, &refusing(), &[], "", Sitting::Nobody)
}

fn files() -> (Scratch, String, String) {
    let scratch = Scratch::new();
    let (token, ca) = (scratch.file("token", "kw_abc\n"), scratch.file("ca.pem", CA));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    (scratch, token, ca)
}

#[test]
fn a_server_that_the_ca_vouches_for_is_shown_the_token() {
    let (_scratch, token, ca) = files();
    for host in ["localhost", "127.0.0.1"] {
        let (address, served) = serve();
        let said = list(&format!("https://{host}:{}", address.port()), &token, &ca);
        assert_eq!(said, Said { code: DONE, out: "[]\n".to_owned(), err: String::new() });
        let request = served.join().unwrap().unwrap();
        assert!(request.starts_with("GET /v1/users?limit=1000 HTTP/1.1\r\n"), "{request}");
        let request = request.to_ascii_lowercase();
        assert!(request.contains("\r\nauthorization: bearer kw_abc\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nhost: {host}:{}\r\n", address.port())), "{request}");
    }
}

/// A certificate as `openssl req -x509` makes it: a CA's, signed by itself, good until the
/// year that is given.
fn own(host: &str, until: i32) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_server_whose_own_certificate_was_named_is_trusted_in_its_name_until_it_expires() {
    let (scratch, token, _) = files();
    for (host, until, trusted) in
        [("localhost", 2120, true), ("localhost", 2001, false), ("elsewhere.test", 2120, false)]
    {
        let (certificate, key) = own(host, until);
        let named = scratch.file("own.pem", &certificate);
        let (address, served) = serve_as(&certificate, &key);
        let said = list(&format!("https://localhost:{}", address.port()), &token, &named);
        let expected = if trusted { (DONE, "[]\n") } else { (UNREACHABLE, "") };
        assert_eq!((said.code, said.out.as_str()), expected, "{host} {until}: {said:?}");
        assert_eq!(served.join().unwrap().is_some(), trusted, "{host} {until}");
    }
}

#[test]
fn a_server_that_is_not_trusted_is_shown_nothing() {
    let (scratch, token, _) = files();
    let other = scratch.file("other.pem", &own("localhost", 2120).0);
    let (address, served) = serve();
    let said = list(&format!("https://localhost:{}", address.port()), &token, &other);
    assert_eq!((said.code, said.out.as_str()), (UNREACHABLE, ""), "{said:?}");
    assert!(said.err.contains("name that with --ca"), "{said:?}");
    assert_eq!(served.join().unwrap(), None);
}

#[test]
fn a_certificate_for_another_host_is_not_trusted() {
    let (_scratch, token, ca) = files();
    let (address, served) = serve();
    let said = list(&format!("https://127.0.0.2:{}", address.port()), &token, &ca);
    assert_eq!(said.code, UNREACHABLE, "{said:?}");
    drop(std::net::TcpStream::connect(address));
    assert_eq!(served.join().unwrap(), None);
}

#[test]
fn a_token_that_others_can_read_and_a_ca_that_is_none_are_told() {
    let (scratch, token, ca) = files();
    let open = scratch.file("open", "kw_abc");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let empty = scratch.file("empty", "\n");
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o600)).unwrap();
    let missing = scratch.path("missing");
    for (token, ca, what) in [
        (&open, &ca, "is open to others (mode 0644)"),
        (&empty, &ca, "holds no token"),
        (&missing, &ca, "missing: No such file"),
        (&token, &missing, "missing: No such file"),
        (&token, &token, "holds no certificate in PEM"),
    ] {
        let said = list("https://localhost:1", token, ca);
        assert_eq!(said.code, FAULTS, "{said:?}");
        assert!(said.err.contains(what), "{said:?}");
    }
    let said = list("https://127.0.0.1:1", &token, &ca);
    assert_eq!(said.code, UNREACHABLE);
    assert!(said.err.contains("no keyway answers at https://127.0.0.1:1"), "{said:?}");
}
