//! Services that lie, hang, or never stop talking, and those that nobody vouches for.

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use sigv4_ec2::{Builder, Chain, Client, Credentials, CredentialsError, Environment, Error, Source as _, SystemClock};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Answers each connection with `respond`, until the test's process ends. Gives `host:port`.
fn serve(respond: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    let respond = Arc::new(respond);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = Arc::clone(&respond);
            thread::spawn(move || respond(stream));
        }
    });
    address
}

fn builder(url: String) -> Builder {
    let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", "the-secret", Some("the-session".to_owned()));
    let builder = Client::builder("eu-central-1").environment(Environment::default());
    builder.endpoint(url).credentials(credentials).patience(Duration::from_secs(1))
}

fn ask(address: &str) -> Error {
    let client = builder(format!("http://{address}")).build().expect("the settings are good");
    let started = Instant::now();
    let error = client.describe_instances(&[], &[]).expect_err("nobody there is EC2");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    error
}

/// Reads one request: its head, and its form's bytes. Whoever hangs up has asked nothing.
fn request(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).unwrap_or(0);
        if read == 0 {
            return String::new();
        }
        text.extend_from_slice(&part[..read]);
        let head = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, form)) = head.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            // What asks for something to read has no form.
            if form.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                return format!("{head}\r\n\r\n{form}");
            }
        }
    }
}

fn reply(stream: &mut impl Write, status: &str, body: &str) {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // A client that has heard enough hangs up.
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let address = serve(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("10000\r\n{}\r\n", "<".repeat(0x10000));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
    });
    let error = ask(&address).to_string();
    assert!(error.contains("longer than 8388608 bytes"), "{error}");
}

#[test]
fn headers_without_end_are_cut_off() {
    let address = serve(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-more: and more and more and more\r\n").is_ok() {}
    });
    assert!(matches!(ask(&address), Error::Transport { .. }));
}

#[test]
fn silence_is_not_waited_for() {
    // Reads until the client hangs up, and says nothing.
    let silent = serve(|mut stream| while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {});
    let error = ask(&silent);
    assert!(error.is_ambiguous() && matches!(error, Error::Transport { .. }), "{error}");
    let dripping = serve(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::park_timeout(Duration::from_millis(100));
        }
    });
    assert!(ask(&dripping).is_ambiguous());
}

#[test]
fn nonsense_is_named_and_repeats_no_secret() {
    let table = [
        ("200 OK", "not XML at all", "cannot be read: it is not XML"),
        (
            "200 OK",
            "<a><reservationSet><item><instancesSet><item/></instancesSet></item></reservationSet></a>",
            "<item> has no <instanceId>",
        ),
        ("302 Found", "", "HTTP 302"),
        ("418 I'm a teapot", "<html>", "HTTP 418"),
        (
            "403 Forbidden",
            "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>the-secret x-amz-security-token:the-session</Message></Error></ErrorResponse>",
            "SignatureDoesNotMatch: (hidden) x-amz-security-token:(hidden)",
        ),
    ];
    for (status, body, part) in table {
        let address = serve(move |mut stream| {
            request(&mut stream);
            reply(&mut stream, status, body);
        });
        let error = ask(&address);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(part), "{shown}");
        assert!(!shown.contains("the-secret") && !shown.contains("the-session"), "{shown}");
    }
}

/// Each page arrives well within one request's time.
#[test]
fn slow_pages_share_one_calls_patience() {
    let address = serve(|mut stream| {
        while !request(&mut stream).is_empty() {
            thread::park_timeout(Duration::from_millis(300));
            reply(&mut stream, "200 OK", "<a><reservationSet/><nextToken>on</nextToken></a>");
        }
    });
    let error = ask(&address);
    assert!(matches!(error, Error::Transport { unsent: true, .. }), "{error}");
}

#[test]
fn patience_may_be_without_end() {
    let address = serve(|mut stream| {
        request(&mut stream);
        reply(&mut stream, "200 OK", "<a><reservationSet/></a>");
    });
    let client = builder(format!("http://{address}")).patience(Duration::MAX).build().expect("the settings are good");
    assert_eq!(client.describe_instances(&[], &[]).expect("it answers"), []);
}

#[test]
fn pages_without_end_are_given_up() {
    let address = serve(|mut stream| {
        while !request(&mut stream).is_empty() {
            reply(&mut stream, "200 OK", "<a><reservationSet/><nextToken>on</nextToken></a>");
        }
    });
    let client = builder(format!("http://{address}")).patience(Duration::from_secs(60)).build().expect("the settings are good");
    let error = client.describe_instances(&[], &[]).expect_err("nobody there is EC2").to_string();
    assert_eq!(error, "DescribeInstances goes on after 100 pages; narrow its filters");
}

/// A service over TLS, and the certificate that vouches for it, as PEM.
fn serve_tls() -> (String, String) {
    let key = KeyPair::generate().expect("ring makes keys");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).and_then(|params| params.self_signed(&key)).expect("it is ours");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("ring has them").with_no_client_auth();
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
    let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], private).expect("they belong together"));
    let address = serve(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("the settings are good"), stream);
        let mut first = [0; 1];
        // Whoever does not trust us says so instead of asking.
        if stream.read_exact(&mut first).is_ok() {
            request(&mut (&first[..]).chain(&mut stream));
            reply(&mut stream, "200 OK", "<a><reservationSet/></a>");
        }
    });
    (address.replace("127.0.0.1", "localhost"), certificate.pem())
}

#[test]
fn https_is_spoken_with_whom_somebody_trusted_vouches_for_and_nobody_else() {
    let (address, pem) = serve_tls();
    let trusting = builder(format!("https://{address}")).trusted_roots(pem.clone()).build().expect("the settings are good");
    assert_eq!(trusting.describe_instances(&[], &[]).expect("it is trusted"), []);

    let others = builder(format!("https://{address}")).build().expect("the settings are good");
    let error = others.describe_instances(&[], &[]).expect_err("nobody vouches for it");
    assert!(matches!(error, Error::Transport { .. }), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("roots.pem");
    std::fs::write(&bundle, &pem).expect("it is ours");
    let environment = |path: &str| Environment::from_iter([("AWS_CA_BUNDLE", path)]);
    let named = builder(format!("https://{address}")).environment(environment(bundle.to_str().expect("it is ASCII")));
    assert_eq!(named.build().expect("the settings are good").describe_instances(&[], &[]).expect("it is trusted"), []);
    let missing = builder(format!("https://{address}")).environment(environment("/nonexistent/roots.pem")).build();
    assert!(missing.expect_err("there is no such file").to_string().contains("AWS_CA_BUNDLE=/nonexistent/roots.pem"));

    std::fs::write(&bundle, "# nobody yet\n").expect("it is ours");
    let path = bundle.to_str().expect("it is ASCII");
    let error = builder(format!("https://{address}")).environment(environment(path)).build().expect_err("it trusts nobody");
    assert!(matches!(&error, Error::Setting { setting, .. } if *setting == format!("AWS_CA_BUNDLE={path}")), "{error:?}");
    assert!(builder(format!("https://{address}")).trusted_roots("").build().is_err());
}

/// A metadata service that gives a token only to the second who asks, if at all.
#[test]
fn a_busy_metadata_service_is_asked_once_more_and_not_taken_for_none() {
    for (status, found) in [("503 Busy", true), ("503 Always", false)] {
        let asked = AtomicUsize::new(0);
        let address = serve(move |mut stream| {
            let request = request(&mut stream);
            let is_busy = !found || (request.starts_with("PUT") && asked.fetch_add(1, Ordering::SeqCst) == 0);
            let role = r#"{"AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
            match request.split(' ').nth(1).unwrap_or_default() {
                _ if is_busy => reply(&mut stream, status, ""),
                path if path.ends_with("/role") => reply(&mut stream, "200 OK", role),
                _ => reply(&mut stream, "200 OK", "role"),
            }
        });
        let url = format!("http://{address}");
        let environment = Environment::from_iter([("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), ("HOME", "/nonexistent")]);
        let chain = Chain::new(environment, None, Arc::new(SystemClock::new()));
        match chain.credentials() {
            Ok(credentials) => assert!(found && credentials.key() == "ASIA"),
            Err(error) => assert!(!found && matches!(error, CredentialsError::Imds { .. }), "{error}"),
        }
    }
}

#[test]
fn what_is_no_region_and_no_address_is_refused_by_name() {
    let address = |url: &str| builder(url.to_owned()).build().expect_err("it is no address").to_string();
    for wrong in ["", "127.0.0.1:80", "ftp://127.0.0.1", "http://", "https:///path"] {
        assert_eq!(address(wrong), format!("cannot use endpoint `{wrong}`"));
    }
    let region = Client::builder("evil.example/").build().expect_err("it is no region").to_string();
    assert_eq!(region, "cannot use region `evil.example/`");
}
