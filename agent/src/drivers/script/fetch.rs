//! `fetch`: one HTTP(S) request on a thread of its own, bounded in time and size.

use std::{io::Read, thread, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::child::THREAD_STACK_BYTES;
use crate::model::limits::{FETCH_BODY_BYTES_MAX, FETCH_TIMEOUT_MS};

#[derive(Deserialize)]
struct Request {
    url: String,
    method: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    timeout_ms: Option<u64>,
}

/// Begins the request that `prelude.js` described; `done` gets `{ status, body }` or why it failed.
pub fn start(request: Value, done: impl FnOnce(Result<Value, String>) + Clone + Send + 'static) {
    let spare = done.clone();
    let spawned = thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(move || {
        let (url, result) = match serde_json::from_value::<Request>(request) {
            Ok(request) => (request.url.clone(), fetch(request)),
            Err(e) => (String::new(), Err(e.to_string())),
        };
        done(result.map_err(|why| format!("cannot fetch {url}: {why}")));
    });
    if let Err(e) = spawned {
        spare(Err(format!("cannot fetch: {e}")));
    }
}

fn fetch(request: Request) -> Result<Value, String> {
    let timeout = Duration::from_millis(request.timeout_ms.unwrap_or(FETCH_TIMEOUT_MS));
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .user_agent("disco")
        .allow_non_standard_methods(true);
    let agent = config.build().new_agent();
    let mut described = ureq::http::Request::builder().method(request.method.as_str()).uri(&request.url);
    for (name, value) in &request.headers {
        described = described.header(name, value);
    }
    let answer = match request.body {
        Some(body) => agent.run(described.body(body).map_err(|e| e.to_string())?),
        None => agent.run(described.body(()).map_err(|e| e.to_string())?),
    };
    let mut answer = answer.map_err(|e| reason(&e))?;
    let mut body = Vec::new();
    answer.body_mut().as_reader().take(FETCH_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut body).map_err(|e| e.to_string())?;
    if body.len() > FETCH_BODY_BYTES_MAX {
        return Err(format!("the answer is larger than {} KiB", FETCH_BODY_BYTES_MAX / 1024));
    }
    Ok(json!({ "status": answer.status().as_u16(), "body": String::from_utf8_lossy(&body) }))
}

/// ureq's errors print as `io: Connection refused (os error 111)`.
fn reason(e: &ureq::Error) -> String {
    match e {
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}
