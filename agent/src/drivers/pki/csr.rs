//! Keys, and asking for certificates (PKCS#10, RFC 2986).
//!
//! The key is made where it stays; only the request travels. What a request wishes to be called is ignored: it proves
//! that the asker holds the key, and the authority decides the name.

use super::PkiError;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};

/// A request of ours has about 150 bytes.
pub const CSR_BYTES_MAX: usize = 4096;

/// A fresh ed25519 key, PKCS#8 DER.
pub fn new_key() -> Vec<u8> {
    KeyPair::generate_for(&PKCS_ED25519).expect("the kernel has random bytes once it has booted").serialize_der()
}

/// The raw public half (32 bytes) of a PKCS#8 key.
///
/// # Errors
/// It is damaged, or not ed25519.
pub fn public_key(key: &[u8]) -> Result<Vec<u8>, PkiError> {
    Ok(open(key)?.public_key_raw().to_vec())
}

/// A request (DER) for a certificate of this key.
///
/// # Errors
/// The key is damaged, or not ed25519.
pub fn new_csr(key: &[u8]) -> Result<Vec<u8>, PkiError> {
    let key = open(key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).expect("a request without names has nothing to refuse");
    Ok(request.der().to_vec())
}

/// The raw public key (32 bytes) of a request that its holder signed.
///
/// # Errors
/// It is too large, damaged, signed by another key, or not ed25519.
pub fn check_csr(csr: &[u8]) -> Result<Vec<u8>, PkiError> {
    if csr.len() > CSR_BYTES_MAX {
        return Err(PkiError::RequestTooLarge { bytes: csr.len(), max: CSR_BYTES_MAX });
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|error| PkiError::Damaged { what: "certificate request", why: error.to_string() })?;
    // Signature and key are of one kind: an ed25519 signature was checked with this key.
    if request.public_key.algorithm() != &PKCS_ED25519 || request.public_key.der_bytes().len() != 32 {
        return Err(PkiError::OtherKeyKind("certificate request"));
    }
    Ok(request.public_key.der_bytes().to_vec())
}

fn open(key: &[u8]) -> Result<KeyPair, PkiError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ED25519)
        .map_err(|error| PkiError::Damaged { what: "key", why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gives_the_key_that_made_it() {
        let key = new_key();
        assert_eq!(check_csr(&new_csr(&key).expect("a good key")), public_key(&key));
    }

    #[test]
    fn a_request_that_was_touched_is_refused() {
        let csr = new_csr(&new_key()).expect("a good key");
        // Between what is signed and the 64 bytes of signature stand the algorithm's name (7 bytes) and the signature's
        // header (3), which no signature covers.
        let uncovered = csr.len() - 64 - 3 - 7..csr.len() - 64;
        for index in (0..csr.len()).filter(|index| !uncovered.contains(index)) {
            let mut touched = csr.clone();
            touched[index] ^= 1;
            assert!(check_csr(&touched).is_err(), "byte {index}");
        }
        assert!(check_csr(&csr[..csr.len() - 1]).is_err());
        assert!(check_csr(b"").is_err());
        assert_eq!(check_csr(&vec![0; 5000]), Err(PkiError::RequestTooLarge { bytes: 5000, max: CSR_BYTES_MAX }));
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        let key = KeyPair::generate().expect("random bytes");
        let csr = CertificateParams::default().serialize_request(&key).expect("nothing to refuse");
        assert_eq!(check_csr(csr.der()), Err(PkiError::OtherKeyKind("certificate request")));
        assert!(new_csr(&key.serialize_der()).is_err());
    }
}
