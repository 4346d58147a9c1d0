//! What one asks a node at its own door, each with a bound of its own.

use crate::common::block_on;
use proto::{
    Channel, ChannelLimits,
    v1::{self, read_reply::Result as Reply, read_request::Query},
};
use std::{path::Path, time::Duration};
use tonic::Status;

pub fn limits(within: Duration) -> ChannelLimits {
    ChannelLimits { request_timeout: within, ..ChannelLimits::default() }
}

fn read(door: &Path, stale: bool, query: Query, within: Duration) -> Result<Reply, Status> {
    block_on(async |spawner| {
        let mut disco = Channel::unix(spawner, door.to_owned(), limits(within)).disco();
        let reply = disco.read(v1::ReadRequest { stale, query: Some(query) }).await?.into_inner();
        reply.result.ok_or_else(|| Status::internal("an empty reply"))
    })
}

/// The cluster, by the word of a majority.
pub fn status(door: &Path, within: Duration) -> Result<v1::Status, Status> {
    match read(door, false, Query::Status(v1::StatusQuery {}), within)? {
        Reply::Status(status) => Ok(status),
        other => panic!("asked for the status, got {other:?}"),
    }
}

/// The cluster as this node last saw it.
pub fn status_stale(door: &Path, within: Duration) -> Result<v1::Status, Status> {
    match read(door, true, Query::Status(v1::StatusQuery {}), within)? {
        Reply::Status(status) => Ok(status),
        other => panic!("asked for the status, got {other:?}"),
    }
}

/// The node's own position in Raft, and the digest of its state.
pub fn member(door: &Path, within: Duration) -> Result<v1::Member, Status> {
    match read(door, true, Query::Member(v1::MemberQuery {}), within)? {
        Reply::Member(member) => Ok(member),
        other => panic!("asked for the member, got {other:?}"),
    }
}

/// A key's value, by the word of a majority.
pub fn value(door: &Path, key: &str, within: Duration) -> Result<Option<Vec<u8>>, Status> {
    match read(door, false, Query::KvGet(v1::KvGet { key: key.into() }), within)? {
        Reply::KvValue(found) => Ok(found.value),
        other => panic!("asked for a key, got {other:?}"),
    }
}

/// Every key with this prefix, by the word of a majority (page by page, so nobody may write meanwhile).
pub fn keys(door: &Path, prefix: &str, within: Duration) -> Result<Vec<(String, Vec<u8>)>, Status> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let after = found.last().map_or_else(String::new, |(key, _)| key.clone());
        match read(door, false, Query::KvList(v1::KvList { prefix: prefix.into(), after, limit: 500 }), within)? {
            Reply::KvPage(page) => {
                found.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value)));
                if !page.more {
                    return Ok(found);
                }
            }
            other => panic!("asked for keys, got {other:?}"),
        }
    }
}
