//! `disco kv get | set | del | ls | watch`.

use super::{Desk, watcher::Watcher};
use crate::client::mismatched;
use crate::message::{Exit, Failure};
use crate::render::{json, table::Table};
use agent::model::limits;
use proto::v1::{self, read_reply, read_request, write_reply, write_request};
use std::io::Read as _;

/// Keys asked for at once by `ls`; one page of the largest values still fits a message.
const PAGE: u32 = 64;
/// Characters of a value that a table shows.
const SHOWN_MAX: usize = 60;

pub async fn get(mut desk: Desk, key: String, raw: bool, stale: bool) -> Result<Exit, Failure> {
    let what = format!("cannot read key `{key}`");
    let answer =
        desk.client.read(stale, read_request::Query::KvGet(v1::KvGet { key: key.clone() })).await.map_err(|e| e.failure(what.as_str()))?;
    let read_reply::Result::KvValue(found) = answer else { return Err(mismatched().failure(what)) };
    if desk.out.json {
        desk.out.document(&json::kv(&key, found.value.as_deref(), found.version))?;
    }
    match found.value {
        None if desk.out.json => Ok(Exit::No),
        None => Err(Failure::no(format!("there is no key `{key}`"))),
        Some(_) if desk.out.json => Ok(Exit::Done),
        Some(mut value) => {
            if !raw {
                value.push(b'\n');
            }
            desk.out.data(value).map(|()| Exit::Done)
        }
    }
}

pub async fn set(mut desk: Desk, key: String, value: Option<String>) -> Result<Exit, Failure> {
    let value = match value {
        Some(value) => value.into_bytes(),
        None => from_stdin()?,
    };
    let op = write_request::Op::KvSet(v1::KvSet { key: key.clone(), value });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(format!("cannot set key `{key}`")))?;
    desk.changed(&reply, format!("key {key} is set"))
}

/// One byte past the bound is read, so that the cluster's refusal names it; no more.
fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let most = limits::VALUE_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut value)
        .map_err(|e| Failure::broke("cannot read the value from standard input").caused_by(&e))?;
    Ok(value)
}

pub async fn delete(mut desk: Desk, key: String) -> Result<Exit, Failure> {
    let op = write_request::Op::KvDelete(v1::KvDelete { key: key.clone() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(format!("cannot delete key `{key}`")))?;
    if let Some(write_reply::Result::Existed(v1::Existed { existed: false })) = reply.result {
        return Err(Failure::no(format!("there is no key `{key}`")));
    }
    desk.changed(&reply, format!("key {key} is deleted"))
}

pub async fn list(mut desk: Desk, prefix: String, stale: bool) -> Result<Exit, Failure> {
    let what = "cannot list the keys";
    let mut entries: Vec<v1::KvEntry> = Vec::new();
    loop {
        let after = entries.last().map(|e| e.key.clone()).unwrap_or_default();
        let query = read_request::Query::KvList(v1::KvList { prefix: prefix.clone(), after, limit: PAGE });
        let answer = desk.client.read(stale, query).await.map_err(|e| e.failure(what))?;
        let read_reply::Result::KvPage(page) = answer else { return Err(mismatched().failure(what)) };
        let more = page.more && !page.entries.is_empty();
        entries.extend(page.entries);
        if !more || entries.len() > limits::KEYS_MAX {
            break;
        }
    }
    if desk.out.json {
        desk.out.document(&entries.iter().map(|e| json::kv(&e.key, Some(&e.value), e.version)).collect())?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["KEY", "VALUE"]);
    for entry in &entries {
        table.row(&[&entry.key, &shown(&entry.value)]);
    }
    desk.out.data(table.render(|h| desk.out.paint.dim(h), |_, cell| cell.to_owned()))?;
    Ok(Exit::Done)
}

/// The beginning of a value, on one line.
fn shown(value: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(value) else { return format!("({} bytes, no text)", value.len()) };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], value.len()),
        None => text.to_owned(),
    }
}

/// One line per change: the value; for a key that is not there, words on stderr.
pub async fn watch(mut desk: Desk, key: String) -> Result<Exit, Failure> {
    let what = format!("cannot watch key `{key}`");
    let mut watcher = Watcher::new(false, read_request::Query::KvGet(v1::KvGet { key: key.clone() }));
    let mut last: Option<v1::KvValue> = None;
    loop {
        let answer = watcher.next(&mut desk.client, desk.out).await.map_err(|e| e.failure(what.as_str()))?;
        let read_reply::Result::KvValue(found) = answer else { return Err(mismatched().failure(what)) };
        if last.as_ref() == Some(&found) {
            continue;
        }
        if desk.out.json {
            desk.out.line(&json::kv(&key, found.value.as_deref(), found.version))?;
        } else if let Some(value) = &found.value {
            desk.out.data([value, &b"\n"[..]].concat())?;
        } else {
            desk.out.say(format!("there is no key `{key}` now"));
        }
        last = Some(found);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_and_binary_values_are_shown_short() {
        assert_eq!(super::shown(b"x"), "x");
        assert_eq!(super::shown(&[0xff]), "(1 bytes, no text)");
        assert!(super::shown("ü".repeat(61).as_bytes()).ends_with("ü… (122 bytes)"));
    }
}
