//! Public keys, and the fingerprint that EC2 shows for them.
//!
//! EC2 has two ways to write one ("Verify the fingerprint of your key pair", EC2 User Guide): for an RSA key that was
//! imported, MD5 of the key in DER as colon-separated hex; for ED25519, SHA-256 in base64 as OpenSSH writes it. Computing
//! it here tells whether the key of a name is still ours, before a machine trusts it.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_BARE},
};
use sha2::{Digest as _, Sha256};
use std::{fmt, fmt::Write as _};

/// A line of an OpenSSH `.pub` file: `ssh-ed25519 AAAA… comment`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    line: String,
    kind: Kind,
    /// RFC 4253, 6.6: length-prefixed strings.
    blob: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    Ed25519,
}

/// Why a text is no public key for EC2.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public key that EC2 takes: {wrong}")]
pub struct PublicKeyError {
    wrong: String,
}

/// The longest line that is read; an RSA key of 16,384 bits has 2,800 letters.
const LINE_BYTES_MAX: usize = 8 << 10;

impl PublicKey {
    /// Reads one line of OpenSSH's format.
    ///
    /// # Errors
    /// [`PublicKeyError`] for what is malformed and for other kinds than RSA and ED25519, which EC2 refuses.
    pub fn parse(line: &str) -> Result<PublicKey, PublicKeyError> {
        let wrong = |wrong: &str| PublicKeyError { wrong: wrong.to_owned() };
        let line = line.trim();
        if line.len() > LINE_BYTES_MAX || line.contains('\n') {
            return Err(wrong("it is not one line of at most 8 KiB"));
        }
        let mut words = line.split_ascii_whitespace();
        let kind = match words.next().unwrap_or_default() {
            "ssh-rsa" => Kind::Rsa,
            "ssh-ed25519" => Kind::Ed25519,
            other => return Err(PublicKeyError { wrong: format!("its kind is `{}`", other.escape_default()) }),
        };
        let blob = BASE64.decode(words.next().unwrap_or_default()).map_err(|_| wrong("its second word is no base64"))?;
        let key = PublicKey { line: line.to_owned(), kind, blob };
        key.parts().ok_or_else(|| wrong("its inside is not what its kind says"))?;
        Ok(key)
    }

    /// The line, as EC2 wants it.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// What EC2 shows as the fingerprint of this key once it is imported. ED25519 has `=` at its end there and OpenSSH
    /// does not, so compare with [`PublicKey::has_fingerprint`].
    pub fn fingerprint(&self) -> String {
        match self.kind {
            Kind::Ed25519 => BASE64_BARE.encode(Sha256::digest(&self.blob)),
            Kind::Rsa => {
                let parts = self.parts().expect("parse looked at them");
                hex(&md5::compute(rsa_der(parts[1], parts[0])).0)
            }
        }
    }

    /// Whether this is the key behind a fingerprint that EC2 shows.
    pub fn has_fingerprint(&self, shown: &str) -> bool {
        let shown = shown.strip_prefix("SHA256:").unwrap_or(shown).trim_end_matches('=');
        shown == self.fingerprint()
    }

    /// What comes after the kind: of RSA exponent and modulus, of ED25519 the 32 bytes.
    fn parts(&self) -> Option<Vec<&[u8]>> {
        let mut rest = self.blob.as_slice();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at_checked(4)?;
            let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
            let (part, after) = after.split_at_checked(length)?;
            parts.push(part);
            rest = after;
        }
        let fits = match (self.kind, &parts[..]) {
            (Kind::Rsa, [name, exponent, modulus]) => *name == b"ssh-rsa" && !exponent.is_empty() && !modulus.is_empty(),
            (Kind::Ed25519, [name, key]) => *name == b"ssh-ed25519" && key.len() == 32,
            _ => false,
        };
        fits.then(|| parts.split_off(1))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.line)
    }
}

/// RFC 5280's SubjectPublicKeyInfo around RFC 8017's RSAPublicKey.
fn rsa_der(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    // SEQUENCE { OID rsaEncryption (1.2.840.113549.1.1.1), NULL }
    const ALGORITHM: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    // SSH's mpint is a DER INTEGER's content: big-endian, two's complement, no needless bytes.
    let key = der(0x30, &[der(0x02, modulus), der(0x02, exponent)].concat());
    let bits = der(0x03, &[&[0][..], &key].concat());
    der(0x30, &[&ALGORITHM[..], &bits].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if let Ok(short @ 0..=0x7f) = u8::try_from(content.len()) {
        out.push(short);
    } else {
        let length = content.len().to_be_bytes();
        let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(0)..];
        // At most eight bytes of length.
        out.push(0x80 | length.len() as u8);
        out.extend_from_slice(length);
    }
    out.extend_from_slice(content);
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if !text.is_empty() {
            text.push(':');
        }
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_one_that_ssh_keygen_and_openssl_give() {
        // `ssh-keygen -lf KEY`, and `ssh-keygen -ef KEY -m PKCS8 | openssl pkey -pubin -outform DER | openssl md5 -c`.
        let table = [ED25519, RSA];
        for (line, fingerprint) in table {
            let key = PublicKey::parse(line).expect("it is a key");
            assert_eq!(key.fingerprint(), fingerprint);
            assert!(key.has_fingerprint(fingerprint) && !key.has_fingerprint("00:11"));
        }
        let key = PublicKey::parse(ED25519.0).expect("it is a key");
        assert!(key.has_fingerprint(&format!("{}=", ED25519.1)) && key.has_fingerprint(&format!("SHA256:{}", ED25519.1)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cut = &ED25519.0[..50];
        let relabelled = ED25519.0.replacen("ssh-ed25519", "ssh-rsa", 1);
        for wrong in ["", "ssh-ed25519", "ssh-dss AAAA", "ssh-rsa !!!", cut, &relabelled, "ssh-rsa AAAA\nssh-rsa AAAA"] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
    }

    const ED25519: (&str, &str) = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFev8QbWgdgW+h8qxA8+8FM1xjyJUuD1y5tAk6j5J3BG disco",
        "lpBPfFgIs6NFAyfITUv3KM+6qk639x7TeUr8N+hQEcQ",
    );
    const RSA: (&str, &str) = (
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCh0ptwv2troTg9Px9OWwV/ihMCgo/gZUPFVLKlkMeOLdQDu8nHR4wHsCml6f3GJwwrxx2k9cZ1SCUoi1IZ\
         ISMnfwGCyTGfEbJgWAigreY2x4VSA3GWyeObw3U3eqxyROTL4DutJLnSh5D7gG8+qw6ejTcsjcMXX/Y1ZrEIMEUy6A+7XJfRfbr9GNoepUpbEEUZqltfOkQG\
         J2+EhBnRncl0RS71bSOnoUKsy+A4nYC4jGxmVoho9KzkwWTnfH0cqIFFUaDKipBJr2B1tZeunvPP1rTt82IKMJHnik46x1JKH4vGWHTq4meJ9UD+Hexh1FOj\
         vbKYayRAgPu2Ns5JRETV disco",
        "36:c0:55:04:13:40:60:eb:40:3f:8f:4c:4f:cf:24:c9",
    );
}
