//! The instance metadata service, version 2 (EC2 User Guide, "Use IMDS"): what a machine knows of itself, and the
//! credentials of its role.
//!
//! It answers plain HTTP on a link-local address, so a token is asked for first, which a tricked proxy would not do; and
//! no proxy is ever used.

use super::{Credentials, CredentialsError, Source, environment::Environment};
use crate::{Clock, time::parse_rfc3339};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use ureq::{Agent, Body, http::Response};

const ADDRESS: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// Away from EC2 nobody answers there; that must not take long.
const CONNECT_MAX: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A token's time to live, the longest that there is.
const TOKEN_SECS: u64 = 21_600;
/// User data has at most 16 KiB, all else is shorter.
const ANSWER_BYTES_MAX: u64 = 32 << 10;
/// Before a service that was busy is asked once more.
const PAUSE: Duration = Duration::from_millis(100);

/// The metadata service of the machine that we run on.
pub struct Imds {
    agent: Agent,
    address: String,
    clock: Arc<dyn Clock>,
    /// And since when.
    token: Mutex<Option<(String, Duration)>>,
}

impl Imds {
    /// At its usual address, or at `AWS_EC2_METADATA_SERVICE_ENDPOINT`. Asks nothing yet.
    pub fn new(environment: &Environment, clock: Arc<dyn Clock>) -> Imds {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_global(Some(ANSWER_MAX))
            .max_response_header_size(8 << 10)
            .input_buffer_size(8 << 10)
            .output_buffer_size(4 << 10)
            .max_idle_connections(0)
            .build();
        let address = environment.value("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(ADDRESS).trim_end_matches('/').to_owned();
        Imds { agent: config.into(), address, clock, token: Mutex::new(None) }
    }

    /// What stands at a path, for example `/latest/meta-data/instance-id`; `None` if there is nothing.
    ///
    /// # Errors
    /// [`CredentialsError::Imds`] if nobody answers, or not as the service does.
    pub fn read(&self, path: &str) -> Result<Option<String>, CredentialsError> {
        let ask = || {
            let token = self.token()?;
            let url = format!("{}{path}", self.address);
            self.unless_busy(path, || self.agent.get(&url).header("x-aws-ec2-metadata-token", &token).call())
        };
        let mut response = ask()?;
        if response.status().as_u16() == 401 {
            // A token that it does not know any more.
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
            response = ask()?;
        }
        match response.status().as_u16() {
            200 => self.text(path, &mut response).map(Some),
            404 => Ok(None),
            status => Err(self.refused(path, status)),
        }
    }

    fn token(&self) -> Result<String, CredentialsError> {
        const PATH: &str = "/latest/api/token";
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.since_start();
        if let Some((token, since)) = &*kept
            && now.saturating_sub(*since).as_secs() < TOKEN_SECS / 2
        {
            return Ok(token.clone());
        }
        let url = format!("{}{PATH}", self.address);
        let lifetime = TOKEN_SECS.to_string();
        let send = || self.agent.put(&url).header("x-aws-ec2-metadata-token-ttl-seconds", &lifetime).send_empty();
        let mut response = self.unless_busy(PATH, send)?;
        if response.status().as_u16() != 200 {
            return Err(self.refused(PATH, response.status().as_u16()));
        }
        let token = self.text(PATH, &mut response)?;
        Ok(kept.insert((token, now)).0.clone())
    }

    /// Sends it, and once more where the service is busy.
    fn unless_busy(&self, path: &str, send: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, CredentialsError> {
        let sent = || send().map_err(|source| self.wrong(path, source));
        let response = sent()?;
        if response.status().as_u16() < 500 {
            return Ok(response);
        }
        self.clock.sleep(PAUSE);
        sent()
    }

    fn refused(&self, path: &str, status: u16) -> CredentialsError {
        self.wrong(path, format!("it answers with status {status}"))
    }

    fn text(&self, path: &str, response: &mut Response<Body>) -> Result<String, CredentialsError> {
        response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(|source| self.wrong(path, source))
    }

    fn wrong(&self, path: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CredentialsError {
        CredentialsError::Imds { url: format!("{}{path}", self.address), source: source.into() }
    }
}

impl Source for Imds {
    fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let Some(role) = self.read(ROLES)? else {
            return Err(CredentialsError::Nowhere { looked: vec!["this machine's role".to_owned()] });
        };
        // The first line: a machine has one role.
        let role = role.lines().next().unwrap_or_default().trim().to_owned();
        let path = format!("{ROLES}{role}");
        let text = self.read(&path)?.ok_or_else(|| self.wrong(&path, "there is nothing"))?;
        parse(&text).map_err(|wrong| self.wrong(&path, wrong))
    }
}

/// The role's credentials as JSON; what is wrong never says what they are.
fn parse(text: &str) -> Result<Credentials, String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| "the answer is no JSON".to_owned())?;
    let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let need = |key: &str| text(key).ok_or_else(|| format!("the answer has no {key}"));
    if let Some(code) = text("Code").filter(|code| *code != "Success") {
        return Err(format!("the role is not given: {code}"));
    }
    let expires = parse_rfc3339(need("Expiration")?).ok_or("Expiration is no time")?;
    Ok(Credentials::new(need("AccessKeyId")?, need("SecretAccessKey")?, Some(need("Token")?.to_owned())).until(expires))
}

impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imds").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_gives_no_credentials_and_shows_no_secret() {
        let whole =
            r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"hush","Token":"hush2","Expiration":"2026-01-01T00:00:00Z"}"#;
        let credentials = parse(whole).expect("it is whole");
        assert_eq!((credentials.key(), credentials.expires()), ("ASIA", parse_rfc3339("2026-01-01T00:00:00Z")));
        for wrong in [
            "",
            "{}",
            "[1]",
            &whole.replace("Success", "AssumeRoleUnauthorizedAccess"),
            &whole.replace("Token", "Toke"),
            &whole.replace("2026-", "soon-"),
        ] {
            let error = parse(wrong).expect_err("it is not whole");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
