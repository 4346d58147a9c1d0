//! Join tokens: `DISCO1-<CA digest>-<secret>`, derived from the keyring and never stored.
//!
//! A launch's secret is an HMAC over its operation, so that a new leader can repeat the identical launch and check
//! the token it handed out; a person's token is an HMAC over the request that asked for it, so that a retried request
//! gets the same one. The state keeps only SHA-256 of a person's secret.

use crate::model::{
    ids::{ClusterId, OperationId, RequestId},
    io::Keyring,
};
use ring::{digest, hmac};

/// Bytes of HMAC that go into a secret: 160 bits.
const SECRET_BYTES: usize = 20;

pub fn launch_token(keyring: &Keyring, ca: &[u8], operation: OperationId) -> String {
    let tag = launch_tag(keyring, operation);
    whole(ca, &format!("l{:x}.{:x}.{}", operation.epoch, operation.index, hex(&tag.as_ref()[..SECRET_BYTES])))
}

/// The operation a launch token is for, if this keyring made it.
pub fn check_launch(keyring: &Keyring, cluster: ClusterId, secret: &str) -> Option<OperationId> {
    let mut parts = secret.strip_prefix('l')?.split('.');
    let epoch = u32::from_str_radix(parts.next()?, 16).ok()?;
    let index = u64::from_str_radix(parts.next()?, 16).ok()?;
    let given = parts.next().filter(|_| parts.next().is_none())?;
    let operation = OperationId { cluster, epoch, index };
    let made = hex(&launch_tag(keyring, operation).as_ref()[..SECRET_BYTES]);
    // Comparing digests instead of the strings keeps the time independent of where they differ.
    (sha256(made.as_bytes()) == sha256(given.as_bytes())).then_some(operation)
}

/// (id, hash of the secret, whole token) of the token that this request asks for.
pub fn person_token(keyring: &Keyring, ca: &[u8], request: RequestId) -> (String, Vec<u8>, String) {
    let mut message = b"token".to_vec();
    message.extend(request.client.to_be_bytes());
    message.extend(request.sequence.to_be_bytes());
    let tag = hmac::sign(&key(keyring), &message);
    let secret = format!("t{}", hex(&tag.as_ref()[..SECRET_BYTES]));
    let hash = sha256(secret.as_bytes());
    (hex(&hash[..4]), hash, whole(ca, &secret))
}

/// What a node says of a CA instead of its certificate.
pub fn ca_mark(ca: &[u8]) -> u64 {
    sha256(ca).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn launch_tag(keyring: &Keyring, operation: OperationId) -> hmac::Tag {
    hmac::sign(&key(keyring), format!("launch {operation}").as_bytes())
}

fn key(keyring: &Keyring) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &keyring.join_key)
}

fn whole(ca: &[u8], secret: &str) -> String {
    format!("DISCO1-{}-{secret}", hex(&sha256(ca)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(join: u8) -> Keyring {
        Keyring { ca_key: vec![], join_key: vec![join; 32], secrets_key: vec![], epoch: 0, next: None }
    }

    #[test]
    fn a_launch_token_is_for_its_operation_and_keyring_only() {
        let operation = OperationId { cluster: ClusterId(7), epoch: 1, index: 42 };
        let token = launch_token(&keyring(1), b"ca", operation);
        let secret = token.rsplit('-').next().expect("has parts");
        assert_eq!(check_launch(&keyring(1), ClusterId(7), secret), Some(operation));
        assert_eq!(check_launch(&keyring(2), ClusterId(7), secret), None);
        assert_eq!(check_launch(&keyring(1), ClusterId(8), secret), None);
        assert_eq!(check_launch(&keyring(1), ClusterId(7), &secret.replace("l1.2a", "l1.2b")), None);
        for bad in ["", "l", "l1.2a", "lx.y.z", "t123"] {
            assert_eq!(check_launch(&keyring(1), ClusterId(7), bad), None, "{bad}");
        }
    }

    #[test]
    fn a_retried_request_gets_the_same_token() {
        let request = RequestId { client: 3, sequence: 4 };
        assert_eq!(person_token(&keyring(1), b"ca", request), person_token(&keyring(1), b"ca", request));
        assert_ne!(person_token(&keyring(1), b"ca", request).2, person_token(&keyring(1), b"ca", RequestId { client: 3, sequence: 5 }).2);
    }
}
