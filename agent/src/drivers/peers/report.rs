//! How a node says that it lives, and learns who leads and who the managers are.

use super::Peers;
use crate::{
    drivers::api::{convert, refusal::code_of},
    model::{
        authority::Authorities,
        ids::NodeId,
        io::Input,
        query::{Report, Way},
        task::Orders,
    },
};
use proto::{REFUSES_OURS, REFUSES_THEIRS, v1};
use tonic::{Code, Status};

/// Nodes asked in one go; the replica asks again soon.
const TRIES_MAX: usize = 12;

/// Asks in order until a manager answers. One that only knows who leads sends us there, and that is remembered. Whoever
/// answers where no particular node was expected is believed in nothing: it names nodes, and those are asked as themselves.
pub(super) async fn send(peers: &Peers, report: &Report, try_in_order: Vec<Way>) -> Input {
    let nobody = Input::ReportAnswered {
        leader: None,
        managers: Vec::new(),
        removed: Vec::new(),
        orders: Orders::default(),
        authorities: Authorities::default(),
    };
    let mut left: Vec<Way> = try_in_order.into_iter().rev().collect();
    let mut asked: Vec<Way> = Vec::new();
    let mut best = nobody;
    let mut strangers: Vec<String> = Vec::new();
    while let Some(way) = left.pop()
        && asked.len() < TRIES_MAX
    {
        if asked.contains(&way) {
            continue;
        }
        match ask(peers, report, &way).await {
            Ok(Input::ReportAnswered { leader: Some((leader, at)), managers, .. }) if way.node.is_none() => {
                left.extend(managers.into_iter().map(|peer| Way::to(peer.node, peer.address)));
                left.push(Way::to(leader, at));
            }
            Ok(Input::ReportAnswered { leader: Some((leader, at)), managers, removed, orders, authorities }) if managers.is_empty() => {
                left.push(Way::to(leader, at.clone()));
                best = Input::ReportAnswered { leader: Some((leader, at)), managers, removed, orders, authorities };
            }
            Ok(answer) => {
                peers.note_estranged(false, "");
                return answer;
            }
            Err(status) if code_of(&status) == "removed" && way.node.is_some() => return Input::Removed,
            Err(status) => {
                log::debug!("report to {}: {}", way.address, status.message());
                // Who only listens sends nothing else by which it would notice.
                if let (Some(node), Code::Unavailable | Code::DeadlineExceeded) = (way.node, status.code()) {
                    peers.0.door.report(Input::Unreachable { node });
                }
                if [REFUSES_OURS, REFUSES_THEIRS].iter().any(|words| status.message().contains(words)) {
                    strangers.push(status.message().to_owned());
                }
            }
        }
        asked.push(way);
    }
    // Who is merely away may be back; strangers stay strangers.
    if let Some(why) = strangers.last().filter(|_| strangers.len() == asked.len()) {
        peers.note_estranged(true, why);
    }
    best
}

async fn ask(peers: &Peers, report: &Report, way: &Way) -> Result<Input, Status> {
    let mut client = peers.channel_to(way).peer();
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
