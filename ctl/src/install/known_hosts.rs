//! Reads known_hosts as sshd(8) describes it ("SSH_KNOWN_HOSTS FILE FORMAT"): plain and hashed names, patterns, `!`
//! exceptions, `@revoked`. Authorities (`@cert-authority`) are passed over, because no certificates are asked for.

use ring::hmac;
use russh::keys::PublicKey;

/// Longer files are somebody's mistake.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a file says about one machine.
#[derive(Debug, Default)]
pub struct Known {
    pub keys: Vec<PublicKey>,
    pub revoked: Vec<PublicKey>,
    /// Kinds of keys that are there and that nothing here can check, `ssh-rsa` for one.
    pub other_kinds: Vec<String>,
}

/// What `text` says about `host` at `port`. Lines that make no sense say nothing.
pub fn look_up(text: &str, host: &str, port: u16) -> Known {
    let name = if port == 22 { host.to_lowercase() } else { format!("[{}]:{port}", host.to_lowercase()) };
    let mut known = Known::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split_ascii_whitespace().peekable();
        let marker = fields.next_if(|field| field.starts_with('@'));
        let (Some(hosts), Some(kind), Some(key)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if !names(hosts, &name) {
            continue;
        }
        match (marker, key_of(kind, key)) {
            (None, Some(key)) => known.keys.push(key),
            (Some("@revoked"), Some(key)) => known.revoked.push(key),
            (None, None) => known.other_kinds.push(kind.chars().take(40).collect()),
            _ => {}
        }
    }
    known
}

fn key_of(kind: &str, key: &str) -> Option<PublicKey> {
    let checkable = kind == "ssh-ed25519" || kind.starts_with("ecdsa-sha2-nistp");
    checkable.then(|| PublicKey::from_openssh(&format!("{kind} {key}")).ok()).flatten()
}

/// Whether the first field of a line means this name.
fn names(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Some(salt), Some(hash)) = (from_base64(salt), from_base64(hash)) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, name.as_bytes(), &hash).is_ok();
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(exception) if matches(exception.to_lowercase().as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches(pattern.to_lowercase().as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// `*` is any number of characters, `?` one. Linear: a star that was passed is never tried again further left.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// RFC 4648, section 4, with its padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILcMgvBs8qXmTqn40iKNIGzsZ4XnHXXFCAWXPXTKl8z";

    #[test]
    fn a_host_is_known_by_name_pattern_port_and_hash() {
        // The hash is ssh-keygen -H's of `example.org`.
        let hashed = {
            let salt = [7; 20];
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
            format!("|1|{}|{}", base64(&salt), base64(hmac::sign(&key, b"example.org").as_ref()))
        };
        let cases = [
            ("example.org", 22, "example.org", true),
            ("example.org", 22, "EXAMPLE.org,10.0.0.1", true),
            ("10.0.0.1", 22, "example.org,10.0.0.1", true),
            ("example.org", 2222, "example.org", false),
            ("example.org", 2222, "[example.org]:2222", true),
            ("a.example.org", 22, "*.example.org", true),
            ("a.example.org", 22, "*.example.org,!a.example.org", false),
            ("b1.example.org", 22, "b?.example.*", true),
            ("example.org", 22, "*.example.org", false),
            ("example.org", 22, hashed.as_str(), true),
            ("example.com", 22, hashed.as_str(), false),
            ("example.org", 22, "|1|!!|??", false),
        ];
        for (host, port, hosts, known) in cases {
            let found = look_up(&format!("# a comment\n\n{hosts} {KEY} me@here\n"), host, port);
            assert_eq!(found.keys.len(), usize::from(known), "{host} {port} {hosts}");
        }
    }

    #[test]
    fn a_revoked_key_a_foreign_kind_and_nonsense_are_told_apart() {
        let text =
            format!("h {KEY}\n@revoked h {OTHER}\n@cert-authority h {OTHER}\nh ssh-rsa AAAA\nh ssh-ed25519 %%%\nh\n@revoked\n\u{0}\n");
        let known = look_up(&text, "h", 22);
        assert_eq!((known.keys.len(), known.revoked.len()), (1, 1));
        assert_eq!(known.other_kinds, ["ssh-rsa", "ssh-ed25519"]);
    }

    #[test]
    fn no_file_whatever_is_in_it_takes_long_or_breaks_the_reader() {
        let parts =
            ["|1|", "|", "@revoked ", "*", "?", "!", ",", " ", "\t", "=", "AAAA", "ssh-ed25519", "[h]:22", "h", "\u{fffd}", "\n", KEY];
        // A small generator with a seed: the same files each time.
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..2_000 {
            let text: String = (0..next() % 60).map(|_| parts[next() % parts.len()]).collect();
            look_up(&text, "h", 22);
        }
        let began = std::time::Instant::now();
        look_up(&format!("{}x {KEY}", "*a".repeat(50_000)), &"a".repeat(253), 22);
        assert!(began.elapsed().as_secs() < 1, "a pattern of many stars took {:?}", began.elapsed());
    }

    #[test]
    fn base64_is_what_ssh_writes() {
        for plain in [&b""[..], b"f", b"fo", b"foo", b"foob", &[0xff; 20]] {
            assert_eq!(from_base64(&base64(plain)).as_deref(), Some(plain));
        }
        for bad in ["a", "====", "Zg=", "Z!==", "Zg==Zg=="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            (0..4).for_each(|i| text.push(if i <= chunk.len() { DIGITS[(word >> (18 - 6 * i) & 63) as usize] as char } else { '=' }));
        }
        text
    }
}
