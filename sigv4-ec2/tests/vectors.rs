//! Amazon's published cases: the same request, key and time must give the same signature.

use serde::Deserialize;
use sigv4_ec2::{Credentials, Request, Scope, Style, sign};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

#[derive(Deserialize)]
struct Context {
    credentials: Keys,
    region: String,
    service: String,
    timestamp: String,
    normalize: bool,
    #[serde(default)]
    sign_body: bool,
    #[serde(default)]
    omit_session_token: bool,
}

#[derive(Deserialize)]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

/// A request.txt, taken apart.
struct Case {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Case {
    fn parse(text: &str) -> Case {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let first = lines.next().expect("a request line");
        let (method, rest) = first.split_once(' ').expect("a method");
        let target = rest.strip_suffix(" HTTP/1.1").expect("a version").to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            match line.split_once(':') {
                // RFC 9112, 5.2: a line that begins with space goes on with the header above.
                _ if line.starts_with(' ') => {
                    let value = &mut headers.last_mut().expect("a header above").1;
                    value.push(' ');
                    value.push_str(line.trim());
                }
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => panic!("not a header: {line}"),
            }
        }
        Case { method: method.to_owned(), target, headers, body: body.as_bytes().to_vec() }
    }

    fn url(&self) -> String {
        let host = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).expect("every case has a host");
        format!("https://{}{}", host.1, encoded(&self.target))
    }
}

/// Some cases hold raw spaces and letters outside ASCII; on the wire an address is percent-encoded.
fn encoded(target: &str) -> String {
    let byte = |byte: u8| if byte == b' ' || !byte.is_ascii() { format!("%{byte:02X}") } else { char::from(byte).to_string() };
    target.bytes().map(byte).collect()
}

/// RFC 3339 in UTC, whole seconds: `2015-08-30T12:36:00Z`.
fn instant(text: &str) -> SystemTime {
    let numbers: Vec<u64> = text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let [year, month, day, hour, minute, second] = numbers[..] else { panic!("not a time: {text}") };
    // Days since 1970 of a civil date, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    SystemTime::UNIX_EPOCH + Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn signature_of(folder: &Path, context: &Context, encode_path_twice: bool) -> String {
    let case = Case::parse(&fs::read_to_string(folder.join("request.txt")).expect("every case has a request"));
    let keys = &context.credentials;
    let credentials = Credentials::new(&keys.access_key_id, &keys.secret_access_key, keys.token.clone());
    let headers: Vec<(&str, &str)> = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let url = case.url();
    let style = Style {
        encode_path_twice,
        normalize_path: context.normalize,
        body_digest_header: context.sign_body,
        sign_session_token: !context.omit_session_token,
    };
    let request = Request { method: &case.method, url: &url, headers: &headers, body: &case.body };
    let scope = Scope { region: &context.region, service: &context.service, at: instant(&context.timestamp) };
    sign(&request, &credentials, &scope, style).expect("every case can be signed").signature
}

fn cases() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let mut found: Vec<PathBuf> = fs::read_dir(folder).expect("the vectors lie here").flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

fn context(folder: &Path) -> Option<Context> {
    let text = fs::read_to_string(folder.join("context.json")).ok()?;
    Some(serde_json::from_str(&text).expect("a context"))
}

#[test]
fn every_published_signature_is_ours_too() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for folder in cases() {
        let Some(context) = context(&folder) else { continue };
        let expected = fs::read_to_string(folder.join("header-signature.txt")).expect("beside every context");
        compared += 1;
        // These cases mean a path to be encoded once; the two that mean twice are below.
        if signature_of(&folder, &context, false) != expected.trim() {
            wrong.push(folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    assert!(wrong.is_empty(), "other signatures than published: {wrong:?}");
    assert_eq!(compared, 38);
}

#[test]
fn a_path_is_encoded_twice_where_the_service_wants_it() {
    // The two cases without a context name key, time, region and service in the signed request.
    let scopes = [
        ("double-encode-path", "us-east-1", "service", "2015-08-30T12:36:00Z"),
        ("double-url-encode", "us-east-2", "lambda", "2021-05-11T15:40:45Z"),
    ];
    for (name, region, service, timestamp) in scopes {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
        let signed = fs::read_to_string(folder.join("header-signed-request.txt")).expect("every case has one");
        let published = signed.split("Signature=").nth(1).and_then(|rest| rest.lines().next()).expect("a signature");
        let key = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).expect("a key");
        // The secrets that the suites these two came from publish beside their keys.
        let secret =
            if key == "ANOTREAL" { "notrealrnrELgWzOk3IfjzDKtFBhDby" } else { "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" }.to_owned();
        let context = Context {
            credentials: Keys { access_key_id: key.to_owned(), secret_access_key: secret, token: None },
            region: region.to_owned(),
            service: service.to_owned(),
            timestamp: timestamp.to_owned(),
            normalize: true,
            sign_body: false,
            omit_session_token: false,
        };
        assert_eq!(signature_of(&folder, &context, true), published.trim(), "{name}");
        assert_ne!(signature_of(&folder, &context, false), published.trim(), "{name}");
    }
}

#[test]
fn a_time_is_read_as_it_is_written() {
    assert_eq!(instant("2015-08-30T12:36:00Z"), SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160));
    assert_eq!(instant("1970-01-01T00:00:00Z"), SystemTime::UNIX_EPOCH);
    assert_eq!(instant("2024-02-29T00:00:01Z"), SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_801));
}
