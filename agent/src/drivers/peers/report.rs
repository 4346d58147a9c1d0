//! How a node says that it lives, and learns who leads and who the managers are.

use super::Peers;
use crate::{
    drivers::api::{convert, refusal::code_of},
    model::{authority::Authorities, ids::NodeId, io::Input, query::Report, task::Orders},
};
use proto::{REFUSES_OURS, REFUSES_THEIRS, v1};
use tonic::Status;

/// Addresses asked in one go; the replica asks again soon.
const TRIES_MAX: usize = 8;

/// Asks in order until one answers; a node that only knows who leads sends us there.
pub(super) async fn send(peers: &Peers, report: &Report, try_in_order: Vec<String>) -> Input {
    let nobody = Input::ReportAnswered {
        leader: None,
        managers: Vec::new(),
        removed: Vec::new(),
        orders: Orders::default(),
        authorities: Authorities::default(),
    };
    let mut left: Vec<String> = try_in_order.into_iter().rev().collect();
    let mut asked: Vec<String> = Vec::new();
    let mut best = nobody;
    let mut strangers: Vec<String> = Vec::new();
    while let Some(address) = left.pop()
        && asked.len() < TRIES_MAX
    {
        if asked.contains(&address) {
            continue;
        }
        match ask(peers, report, &address).await {
            Ok(Input::ReportAnswered { leader: Some((leader, at)), managers, removed, orders, authorities }) if managers.is_empty() => {
                left.push(at.clone());
                best = Input::ReportAnswered { leader: Some((leader, at)), managers, removed, orders, authorities };
            }
            Ok(answer) => {
                peers.note_estranged(false, "");
                return answer;
            }
            Err(status) if code_of(&status) == "removed" => return Input::Removed,
            Err(status) => {
                log::debug!("report to {address}: {}", status.message());
                if [REFUSES_OURS, REFUSES_THEIRS].iter().any(|words| status.message().contains(words)) {
                    strangers.push(status.message().to_owned());
                }
            }
        }
        asked.push(address);
    }
    // Who is merely away may be back; strangers stay strangers.
    if let Some(why) = strangers.last().filter(|_| strangers.len() == asked.len()) {
        peers.note_estranged(true, why);
    }
    best
}

async fn ask(peers: &Peers, report: &Report, address: &str) -> Result<Input, Status> {
    let mut client = peers.channel_to_any(address).peer();
    let reply = client.report(convert::report_out(report)).await?.into_inner();
    answered(reply)
}

fn answered(reply: v1::ReportReply) -> Result<Input, Status> {
    let removed = reply.removed.iter().map(|id| convert::node_id(id)).collect::<Result<Vec<NodeId>, Status>>()?;
    Ok(Input::ReportAnswered {
        leader: Some((convert::node_id(&reply.leader)?, reply.leader_address)),
        managers: convert::peers(reply.managers)?,
        removed,
        orders: convert::records("orders", &reply.orders)?,
        authorities: convert::records("authorities", &reply.authorities)?,
    })
}
