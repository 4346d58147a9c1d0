//! `disco instance ls | start | stop | terminate`.

use super::Desk;
use crate::args::Global;
use crate::bootstrap::ops::ask;
use crate::bootstrap::project::provider_of;
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::out::Out;
use crate::render::{json, plain, status as screen};
use agent::model::instance::{InstanceDesired, InstanceSeen};
use proto::Spawner;
use proto::v1::{self, write_request};

const CANNOT_LIST: &str = "cannot list the instances";

pub async fn list(global: &Global, out: Out, spawner: &Spawner, stale: bool) -> Result<Exit, Failure> {
    let context = Context::new(global)?;
    let (instances, nodes) = match Desk::open(global, out, spawner) {
        Ok(mut desk) => match desk.client.status(stale).await {
            Ok(status) => {
                desk.remember(&status).await;
                (status.instances, status.nodes)
            }
            Err(error) if error.is_unanswered() => (from_provider(&context, out, error.failure(CANNOT_LIST))?, Vec::new()),
            Err(error) => return Err(error.failure(CANNOT_LIST)),
        },
        Err(failure) => (from_provider(&context, out, failure)?, Vec::new()),
    };
    if out.json {
        out.document(&instances.iter().map(json::instance).collect())?;
    } else {
        out.data(screen::instances(&instances, &nodes, out.paint))?;
    }
    Ok(Exit::Done)
}

/// What the provider sees by itself: no wishes, no nodes, only machines. Where it has nothing to say, `failure` it is.
fn from_provider(context: &Context, out: Out, failure: Failure) -> Result<Vec<v1::Instance>, Failure> {
    let cluster = context.own_cluster()?;
    let Some(cluster) = cluster else { return Err(failure) };
    let Some(id) = cluster.cluster_id() else { return Err(failure) };
    let provider = provider_of(context, id, &cluster)?;
    let seen = provider.describe().map_err(|e| Failure::broke(CANNOT_LIST).caused_by(&e))?;
    out.say("the cluster does not answer: this is what the provider sees");
    let instance = |seen: InstanceSeen| v1::Instance {
        address: if seen.public_address.is_empty() { seen.address.clone() } else { seen.public_address.clone() },
        private_address: seen.address,
        id: seen.id,
        state: seen.state.as_str().to_owned(),
        ..Default::default()
    };
    Ok(seen.into_iter().map(instance).collect())
}

pub async fn set(mut desk: Desk, id: String, desired: InstanceDesired, yes: bool) -> Result<Exit, Failure> {
    let question = format!("End instance {} and delete its data?", plain(&id));
    if desired == InstanceDesired::Terminated && !ask(desk.out, yes, &question).await? {
        return Err(Failure::no("nothing was ended"));
    }
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
