//! `disco instance ls | start | stop | terminate`.

use super::Desk;
use crate::client::CallError;
use crate::message::{Exit, Failure};
use crate::render::{json, status as screen};
use agent::drivers::provider::LocalProvider;
use agent::model::instance::InstanceDesired;
use proto::v1::{self, write_request};

pub async fn list(mut desk: Desk, stale: bool) -> Result<Exit, Failure> {
    let (instances, nodes) = match desk.client.status(stale).await {
        Ok(status) => {
            desk.remember(&status).await;
            (status.instances, status.nodes)
        }
        Err(error @ CallError::Unanswered { .. }) => (from_provider(&desk, error)?, Vec::new()),
        Err(error) => return Err(error.failure("cannot list the instances")),
    };
    if desk.out.json {
        desk.out.document(&instances.iter().map(json::instance).collect())?;
    } else {
        desk.out.data(screen::instances(&instances, &nodes, desk.out.paint))?;
    }
    Ok(Exit::Done)
}

/// What the provider sees by itself: no wishes, no nodes, only machines.
fn from_provider(desk: &Desk, error: CallError) -> Result<Vec<v1::Instance>, Failure> {
    let what = "cannot list the instances";
    let cluster = if desk.context.socket.is_some() { None } else { desk.context.cluster()? };
    let Some((cluster, id)) = cluster.and_then(|c| Some((c.cluster_id()?, c)).map(|(id, c)| (c, id))) else {
        return Err(error.failure(what));
    };
    let provider = LocalProvider::new(desk.context.disco(), id, cluster.name, Default::default());
    let seen = provider.describe().map_err(|e| Failure::broke(what).caused_by(&e))?;
    desk.out.say("the cluster does not answer: this is what the provider sees");
    let instance = |seen: agent::model::instance::InstanceSeen| v1::Instance {
        address: seen.address.clone(),
        private_address: seen.address,
        id: seen.id,
        state: seen.state.as_str().to_owned(),
        ..Default::default()
    };
    Ok(seen.into_iter().map(instance).collect())
}

pub async fn set(mut desk: Desk, id: String, desired: InstanceDesired) -> Result<Exit, Failure> {
    let verb = match desired {
        InstanceDesired::Running => "start",
        InstanceDesired::Stopped => "stop",
        InstanceDesired::Terminated => "terminate",
    };
    let op = write_request::Op::InstanceSet(v1::InstanceSet { instance: id.clone(), desired: desired.as_str().into() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(format!("cannot {verb} instance `{id}`")))?;
    if desk.context.socket.is_none() {
        // Bootstrap respects it even if no node can tell it by then.
        let mut stopped = desk.context.wanted_stopped()?;
        stopped.retain(|s| *s != id);
        if desired == InstanceDesired::Stopped {
            stopped.push(id.clone());
        }
        desk.context.write_wanted_stopped(&stopped)?;
    }
    desk.changed(&reply, format!("instance {id} is to be {}", desired.as_str()))
}
