//! Turns a failed connection into words for a person.
//!
//! The cause lies at the bottom of a chain (hyper → h2 → io → rustls), each layer repeating the one below in its
//! own debug form. People want the bottom, said once.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// How the explanation begins when it was our side that did not believe the other's certificate.
pub const REFUSES_THEIRS: &str = "its certificate is refused";
/// And when it was the other side that did not believe ours.
pub const REFUSES_OURS: &str = "it refuses our certificate";

/// The root cause of `error`, in a few words.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(tls) = cause.downcast_ref::<TlsError>() {
            return explain_tls(tls);
        }
        // What rustls says of a peer that was killed (no close_notify) is a lecture; the kind says it all.
        if let Some(io) = cause.downcast_ref::<io::Error>().filter(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return explain_io(io);
        }
        // io::Error shows what it wraps as itself, so `source` skips it: look inside.
        let inner = cause.downcast_ref::<io::Error>().and_then(|e| e.get_ref()).map(|e| e as &(dyn Error + 'static));
        match inner.or_else(|| cause.source()) {
            Some(next) => cause = next,
            None => break,
        }
    }
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        return explain_io(io);
    }
    cause.to_string()
}

fn explain_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused (nothing listens there)".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
            "the other side closed the connection".into()
        }
        io::ErrorKind::NotFound => "no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn explain_tls(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::Other(other)) => format!("{REFUSES_THEIRS}: {other}"),
        TlsError::InvalidCertificate(CertificateError::Expired) => "its certificate has expired".into(),
        TlsError::InvalidCertificate(why) => format!("{REFUSES_THEIRS}: {why}"),
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => format!("{REFUSES_OURS}: expired"),
        TlsError::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied
            | AlertDescription::UnknownCA
            // RFC 8446, 6.2: also a signature that cannot be verified.
            | AlertDescription::DecryptError,
        ) => REFUSES_OURS.into(),
        TlsError::InvalidMessage(_) => "it does not speak TLS".into(),
        other => other.to_string(),
    }
}
