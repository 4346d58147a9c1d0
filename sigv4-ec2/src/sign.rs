//! Signature Version 4 (AWS General Reference, "Signing AWS API requests"), in headers.
//!
//! A wrong signature is refused by AWS; a right one over the wrong thing is a hole. So the computing is Amazon's, the
//! settings are few and named, and time and secrets are arguments.

use crate::Credentials;
use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign as aws_sign,
    },
    sign::v4::SigningParams,
};
use std::time::SystemTime;

/// Content type of a Query API request.
pub const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `POST`, `GET` …
    pub method: &'a str,
    /// The whole address, percent-encoded as it will be sent.
    pub url: &'a str,
    /// All headers that will be sent and shall be covered; `host` comes from the address if it is not among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The whole body.
    pub body: &'a [u8],
}

/// What a signature is good for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// For example `eu-central-1`.
    pub region: &'a str,
    /// For example `ec2`.
    pub service: &'a str,
    /// Now. EC2 refuses what is off by more than five minutes, other services allow up to 15.
    pub at: SystemTime,
}

/// How services differ. The default is EC2's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Encode the already encoded path once more (every service but S3).
    pub encode_path_twice: bool,
    /// Take `.`, `..` and empty segments out of the path.
    pub normalize_path: bool,
    /// Add and sign a header with the body's digest.
    pub body_digest_header: bool,
    /// Cover the session token by the signature.
    pub sign_session_token: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style { encode_path_twice: true, normalize_path: true, body_digest_header: false, sign_session_token: true }
    }
}

/// What comes of it. The headers may hold a session token: do not log them.
pub struct Signed {
    /// To be added to the request's own.
    pub headers: Vec<(String, String)>,
    /// The signature by itself, 64 hex digits.
    pub signature: String,
}

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The address or a header is malformed.
    #[error("cannot sign a request to {url}")]
    Request {
        /// The address.
        url: String,
        /// What is wrong with it.
        source: aws_sigv4::http_request::SigningError,
    },
    /// A setting is missing.
    #[error("cannot sign for region `{region}`")]
    Scope {
        /// The region.
        region: String,
        /// What is missing.
        source: aws_sigv4::sign::v4::signing_params::BuildError,
    },
}

/// Signs an EC2 Query API request: `form` is posted to `url` with the content type [`FORM`], which is covered.
///
/// # Errors
/// [`SignError::Request`] if `url` is no address.
pub fn sign_query(url: &str, form: &[u8], credentials: &Credentials, region: &str, at: SystemTime) -> Result<Signed, SignError> {
    let request = Request { method: "POST", url, headers: &[("content-type", FORM)], body: form };
    sign(&request, credentials, &Scope { region, service: "ec2", at }, Style::default())
}

/// Signs any request.
///
/// # Errors
/// [`SignError::Request`] if the address or a header is malformed.
pub fn sign(request: &Request<'_>, credentials: &Credentials, scope: &Scope<'_>, style: Style) -> Result<Signed, SignError> {
    let refused = |source| SignError::Request { url: request.url.to_owned(), source };
    let identity = AwsCredentials::new(&credentials.key, &credentials.secret, credentials.token.clone(), None, "sigv4-ec2").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.at)
        .settings(settings(style))
        .build()
        .map_err(|source| SignError::Scope { region: scope.region.to_owned(), source })?
        .into();
    let body = SignableBody::Bytes(request.body);
    let signable = SignableRequest::new(request.method, request.url, request.headers.iter().copied(), body).map_err(refused)?;
    let (instructions, signature) = aws_sign(signable, &params).map_err(refused)?.into_parts();
    let headers = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Signed { headers, signature })
}

fn settings(style: Style) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if !style.encode_path_twice {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
    }
    if !style.normalize_path {
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    if style.body_digest_header {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if !style.sign_session_token {
        settings.session_token_mode = SessionTokenMode::Exclude;
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_signed_over_its_form_its_time_and_its_region() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session".to_owned()));
        let sign = |form: &[u8], region, at| {
            let signed = sign_query("https://ec2.amazonaws.com/", form, &credentials, region, at).expect("it is an address");
            assert!(signed.headers.iter().any(|(name, value)| name == "x-amz-security-token" && value == "session"));
            let authorization = signed.headers.iter().find(|(name, _)| name == "authorization").expect("always there");
            assert!(authorization.1.contains("content-type;host;x-amz-date"), "{}", authorization.1);
            signed.signature
        };
        let at = SystemTime::UNIX_EPOCH;
        let all = [
            sign(b"A=1", "a", at),
            sign(b"A=2", "a", at),
            sign(b"A=1", "b", at),
            sign(b"A=1", "a", at + std::time::Duration::from_secs(1)),
        ];
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None);
        let error =
            sign_query("https://exa mple/", b"", &credentials, "a", SystemTime::UNIX_EPOCH).err().expect("a space is no part of a host");
        assert!(error.to_string().contains("https://exa mple/"));
    }
}
