//! Certificates and keys as text files (PEM, RFC 7468), as people and openssl know them.

use super::PkiError;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};

/// A certificate (DER) as PEM.
pub fn certificate_to_pem(der: &[u8]) -> String {
    to_pem("CERTIFICATE", der)
}

/// A key (PKCS#8 DER) as PEM.
pub fn key_to_pem(der: &[u8]) -> String {
    to_pem("PRIVATE KEY", der)
}

/// The first certificate (DER) in a PEM text.
///
/// # Errors
/// There is none, or it is damaged. `what` names it in the error.
pub fn certificate_from_pem(pem: &[u8], what: &'static str) -> Result<Vec<u8>, PkiError> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|error| PkiError::Damaged { what, why: error.to_string() })?;
    Ok(certificate.to_vec())
}

/// All certificates (DER) in a PEM text, in their order.
///
/// # Errors
/// There is none, or one is damaged. `what` names it in the error.
pub fn certificates_from_pem(pem: &[u8], what: &'static str) -> Result<Vec<Vec<u8>>, PkiError> {
    let damaged = |why: String| PkiError::Damaged { what, why };
    let read = CertificateDer::pem_slice_iter(pem).map(|certificate| certificate.map(|der| der.to_vec()));
    let certificates: Vec<Vec<u8>> = read.collect::<Result<_, _>>().map_err(|error| damaged(error.to_string()))?;
    if certificates.is_empty() { Err(damaged("there is none".into())) } else { Ok(certificates) }
}

/// The first key (PKCS#8 DER) in a PEM text.
///
/// # Errors
/// There is none, or it is damaged. `what` names it in the error.
pub fn key_from_pem(pem: &[u8], what: &'static str) -> Result<Vec<u8>, PkiError> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| PkiError::Damaged { what, why: error.to_string() })?;
    Ok(key.secret_pkcs8_der().to_vec())
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63] as char;
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_rfc_4648() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for length in 0..200u8 {
            let der: Vec<u8> = (0..length).collect();
            assert_eq!(certificate_from_pem(certificate_to_pem(&der).as_bytes(), "certificate"), Ok(der.clone()));
            assert_eq!(key_from_pem(key_to_pem(&der).as_bytes(), "key"), Ok(der));
        }
        assert!(key_from_pem(b"nothing", "key").is_err());
    }
}
