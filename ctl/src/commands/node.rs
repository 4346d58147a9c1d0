//! `disco node ls | inspect | drain | promote | demote | rm`.

use super::{Desk, rollout};
use crate::bootstrap::ops::ask;
use crate::bootstrap::project::Progress;
use crate::message::{Exit, Failure};
use crate::out::now_ms;
use crate::render::{json, status as screen};
use agent::model::node::Role;
use proto::v1::{self, write_request};

pub async fn list(mut desk: Desk, stale: bool) -> Result<Exit, Failure> {
    let status = desk.client.status(stale).await.map_err(|e| e.failure("cannot list the nodes"))?;
    desk.remember(&status).await;
    if desk.out.json {
        desk.out.document(&status.nodes.iter().map(json::node).collect())?;
    } else {
        desk.out.data(screen::nodes(&status, now_ms(), desk.out.paint))?;
    }
    Ok(Exit::Done)
}

pub async fn inspect(mut desk: Desk, wanted: &str, stale: bool) -> Result<Exit, Failure> {
    let status = desk.client.status(stale).await.map_err(|e| e.failure(format!("cannot look at node `{wanted}`")))?;
    let node = find(&status.nodes, wanted)?;
    if desk.out.json {
        desk.out.document(&json::node(node))?;
    } else {
        desk.out.data(screen::node(&status, node, now_ms(), desk.out.paint))?;
    }
    Ok(Exit::Done)
}

/// Moves its tasks away, or lets it take tasks again.
pub async fn drain(mut desk: Desk, wanted: &str, off: bool, wait: bool) -> Result<Exit, Failure> {
    let what = format!("cannot drain node `{wanted}`");
    let status = desk.client.status(false).await.map_err(|e| e.failure(what.as_str()))?;
    let node = find(&status.nodes, wanted)?.clone();
    let op = write_request::Op::NodeDrain(v1::NodeDrain { node: node.id.clone(), drain: !off });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(what.as_str()))?;
    if off {
        return desk.changed(&reply, format!("node {} takes tasks again", node.name));
    }
    if wait {
        let progress = Progress::new(desk.out);
        rollout::until_drained(&mut desk.client, &node, |words| progress.line(words)).await?;
    }
    desk.changed(&reply, format!("node {} is drained: `disco node drain {} --off` lets it take tasks again", node.name, node.name))
}

/// By hand: this one is to vote, or not to.
pub async fn prefer(mut desk: Desk, wanted: &str, role: Role) -> Result<Exit, Failure> {
    let verb = if role == Role::Manager { "promote" } else { "demote" };
    let what = format!("cannot {verb} node `{wanted}`");
    let status = desk.client.status(false).await.map_err(|e| e.failure(what.as_str()))?;
    let node = find(&status.nodes, wanted)?;
    let op = write_request::Op::NodePrefer(v1::NodePrefer { node: node.id.clone(), role: role.as_str().into() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(what))?;
    let words = if node.role == role.as_str() { "is and stays" } else { "becomes" };
    desk.changed(&reply, format!("node {} {words} a {}", node.name, role.as_str()))
}

pub async fn remove(mut desk: Desk, wanted: &str, yes: bool) -> Result<Exit, Failure> {
    let what = format!("cannot remove node `{wanted}`");
    let status = desk.client.status(false).await.map_err(|e| e.failure(what.as_str()))?;
    let node = find(&status.nodes, wanted)?;
    let instance = node.instance.as_ref().map(|id| format!(" and end instance {id}")).unwrap_or_default();
    if !ask(desk.out, yes, &format!("Remove node {} ({}){instance}?", node.name, screen::standing(&status, node))).await? {
        return Err(Failure::no("nothing was removed"));
    }
    let op = write_request::Op::NodeRemove(v1::NodeRemove { node: node.id.clone() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(what))?;
    let keys = if node.member == 0 { "" } else { "; it held the cluster's keys: `disco ca rotate` replaces them" };
    desk.changed(&reply, format!("node {} is removed{keys}", node.name))
}

/// By name, by id, or by the beginning of an id that no other node shares.
fn find<'a>(nodes: &'a [v1::Node], wanted: &str) -> Result<&'a v1::Node, Failure> {
    if let Some(node) = nodes.iter().find(|n| n.id == wanted) {
        return Ok(node);
    }
    let named: Vec<_> = nodes.iter().filter(|n| n.name == wanted).collect();
    let begun: Vec<_> = nodes.iter().filter(|n| wanted.len() >= 4 && n.id.starts_with(wanted)).collect();
    match (named.as_slice(), begun.as_slice()) {
        ([node], _) | ([], [node]) => Ok(node),
        ([], []) => Err(Failure::no(format!("there is no node `{wanted}`")).hint("`disco node ls` lists them")),
        (many @ [_, ..], _) | ([], many) => {
            let ids: Vec<_> = many.iter().map(|n| n.id.as_str()).collect();
            Err(Failure::no(format!("`{wanted}` names {} nodes", many.len())).hint(format!("say which by its id: {}", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_name_id_or_a_beginning_that_is_its_own() {
        let node = |id: &str, name: &str| v1::Node { id: id.into(), name: name.into(), ..Default::default() };
        let nodes = [node("00ab000000000001", "n1"), node("00ab100000000002", "n2"), node("ff00000000000003", "n2")];
        for (wanted, found) in [("n1", 0), ("00ab100000000002", 1), ("00ab1", 1), ("ff00", 2)] {
            assert_eq!(find(&nodes, wanted).map(|n| n.id.as_str()), Ok(nodes[found].id.as_str()), "{wanted}");
        }
        for (wanted, refused) in [
            ("n9", "there is no node `n9`"),
            ("n2", "`n2` names 2 nodes"),
            ("00ab", "`00ab` names 2 nodes"),
            ("ff", "there is no node `ff`"),
        ] {
            assert_eq!(find(&nodes, wanted).expect_err(wanted).what(), refused);
        }
    }
}
