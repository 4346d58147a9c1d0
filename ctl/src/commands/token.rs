//! `disco token create | ls | rotate | revoke`.

use super::Desk;
use crate::client::mismatched;
use crate::message::{Exit, Failure};
use crate::out::now_ms;
use crate::render::{age, json, table::Table};
use agent::model::node::Role;
use proto::v1::{self, read_reply, read_request, write_reply, write_request};

/// The token goes to stdout, alone, so that it can be piped; what it is worth goes to stderr.
pub async fn create(mut desk: Desk, role: Role, ttl_ms: u64, uses: u32) -> Result<Exit, Failure> {
    let what = "cannot create a token";
    let op = write_request::Op::TokenCreate(v1::TokenCreate { role: role.as_str().into(), ttl_ms, uses });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(what))?;
    let Some(write_reply::Result::TokenCreated(created)) = reply.result else { return Err(mismatched().failure(what)) };
    if desk.out.json {
        desk.out.document(&serde_json::json!({ "id": created.id, "token": created.token }))?;
    } else {
        let times = if uses == 1 { "once".to_owned() } else { format!("{uses} times") };
        desk.out.say(format!("token {}: lets a {} in {times}, for {}; it is not shown again", created.id, role.as_str(), age(ttl_ms, 0)));
        desk.out.data(created.token + "\n")?;
    }
    Ok(Exit::Done)
}

pub async fn list(mut desk: Desk, stale: bool) -> Result<Exit, Failure> {
    let what = "cannot list the tokens";
    let answer = desk.client.read(stale, read_request::Query::Tokens(v1::TokenList {})).await.map_err(|e| e.failure(what))?;
    let read_reply::Result::Tokens(v1::Tokens { tokens }) = answer else { return Err(mismatched().failure(what)) };
    if desk.out.json {
        desk.out.document(&tokens.iter().map(json::token).collect())?;
        return Ok(Exit::Done);
    }
    let now = now_ms();
    let mut table = Table::new(&["TOKEN", "ROLE", "USES LEFT", "EXPIRES"]);
    for token in &tokens {
        let expires = if token.expires_ms <= now { "expired".to_owned() } else { format!("in {}", age(token.expires_ms, now)) };
        table.row(&[&token.id, &token.role, &token.uses_left.to_string(), &expires]);
    }
    desk.out.data(table.render(|h| desk.out.paint.dim(h), |_, cell| cell.to_owned()))?;
    Ok(Exit::Done)
}

/// A new token like an old one, which is revoked once the new one is there.
pub async fn rotate(mut desk: Desk, id: String) -> Result<Exit, Failure> {
    let what = format!("cannot rotate token `{id}`");
    let answer = desk.client.read(false, read_request::Query::Tokens(v1::TokenList {})).await.map_err(|e| e.failure(what.as_str()))?;
    let read_reply::Result::Tokens(v1::Tokens { tokens }) = answer else { return Err(mismatched().failure(what)) };
    let Some(old) = tokens.into_iter().find(|token| token.id == id) else {
        return Err(Failure::no(format!("there is no token `{id}`")).hint("`disco token ls` lists them"));
    };
    let ttl_ms = old.expires_ms.saturating_sub(old.created_ms);
    let create = v1::TokenCreate { role: old.role.clone(), ttl_ms, uses: old.uses_left.max(1) };
    let reply = desk.client.write(write_request::Op::TokenCreate(create)).await.map_err(|e| e.failure(what.as_str()))?;
    let Some(write_reply::Result::TokenCreated(created)) = reply.result else { return Err(mismatched().failure(what)) };
    // Shown before the old one ends: whatever happens now, one of the two is in somebody's hands.
    if desk.out.json {
        desk.out.document(&serde_json::json!({ "id": created.id, "token": created.token }))?;
    } else {
        let life = age(ttl_ms, 0);
        desk.out.say(format!("token {} takes the place of {id}, for a {}, for {life}; it is not shown again", created.id, old.role));
        desk.out.data(created.token + "\n")?;
    }
    let revoke = write_request::Op::TokenRevoke(v1::TokenRevoke { id: id.clone() });
    desk.client.write(revoke).await.map_err(|e| {
        e.failure(format!("token {} is made, but token {id} is not revoked", created.id)).hint(format!("`disco token revoke {id}` does it"))
    })?;
    Ok(Exit::Done)
}

pub async fn revoke(mut desk: Desk, id: String) -> Result<Exit, Failure> {
    let what = format!("cannot revoke token `{id}`");
    let op = write_request::Op::TokenRevoke(v1::TokenRevoke { id: id.clone() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(what))?;
    if let Some(write_reply::Result::Existed(v1::Existed { existed: false })) = reply.result {
        return Err(Failure::no(format!("there is no token `{id}`")).hint("`disco token ls` lists them"));
    }
    desk.changed(&reply, format!("token {id} is revoked"))
}
