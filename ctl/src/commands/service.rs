//! `disco service ls | inspect | scale | restart | rollback | rm`.

use super::{Desk, rollout};
use crate::args::nearest;
use crate::bootstrap::ops::ask;
use crate::bootstrap::project::Progress;
use crate::message::{Exit, Failure};
use crate::render::{json, services as screen};
use proto::v1::{self, write_request};

pub async fn list(mut desk: Desk, stale: bool) -> Result<Exit, Failure> {
    let status = desk.client.status(stale).await.map_err(|e| e.failure("cannot list the services"))?;
    desk.remember(&status).await;
    if desk.out.json {
        desk.out.document(&status.services.iter().map(json::service).collect())?;
    } else {
        desk.out.data(screen::table(&status.services, &status.nodes, desk.out.paint))?;
    }
    Ok(Exit::Done)
}

pub async fn inspect(mut desk: Desk, name: &str, stale: bool) -> Result<Exit, Failure> {
    let status = desk.client.status(stale).await.map_err(|e| e.failure(format!("cannot look at service `{name}`")))?;
    let service = find(&status.services, name)?;
    if desk.out.json {
        desk.out.document(&json::service(service))?;
    } else {
        desk.out.data(screen::detail(service, &status.nodes, desk.out.paint))?;
    }
    Ok(Exit::Done)
}

pub async fn scale(desk: Desk, name: String, replicas: u32, wait: bool) -> Result<Exit, Failure> {
    let op = write_request::Op::ServiceScale(v1::ServiceScale { name: name.clone(), replicas });
    change(desk, name.clone(), op, wait, &format!("cannot scale service `{name}`"), &format!("service {name} is scaled to {replicas}"))
        .await
}

pub async fn restart(desk: Desk, name: String, wait: bool) -> Result<Exit, Failure> {
    let op = write_request::Op::ServiceRestart(v1::ServiceName { name: name.clone() });
    change(desk, name.clone(), op, wait, &format!("cannot restart service `{name}`"), &format!("service {name} is restarted")).await
}

pub async fn rollback(desk: Desk, name: String, wait: bool) -> Result<Exit, Failure> {
    let op = write_request::Op::ServiceRollback(v1::ServiceName { name: name.clone() });
    change(desk, name.clone(), op, wait, &format!("cannot roll back service `{name}`"), &format!("service {name} is what it was before"))
        .await
}

async fn change(mut desk: Desk, name: String, op: write_request::Op, wait: bool, cannot: &str, words: &str) -> Result<Exit, Failure> {
    known(&mut desk, &name, cannot).await?;
    let progress = Progress::new(desk.out);
    let reply = desk.client.write(op).await.map_err(|e| e.failure(cannot))?;
    if wait {
        rollout::until_rolled(&mut desk.client, &[name], |words| progress.line(words)).await?;
    }
    desk.changed(&reply, words)
}

pub async fn remove(mut desk: Desk, name: String, yes: bool) -> Result<Exit, Failure> {
    let cannot = format!("cannot remove service `{name}`");
    let service = known(&mut desk, &name, &cannot).await?;
    let tasks = service.tasks.iter().filter(|t| t.wanted).count();
    if !ask(desk.out, yes, &format!("Remove service `{name}` and stop its tasks ({tasks})?")).await? {
        return Err(Failure::no("nothing was removed"));
    }
    let op = write_request::Op::ServiceRemove(v1::ServiceName { name: name.clone() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(cannot))?;
    desk.changed(&reply, format!("service {name} is removed; its tasks end"))
}

async fn known(desk: &mut Desk, name: &str, cannot: &str) -> Result<v1::Service, Failure> {
    let status = desk.client.status(false).await.map_err(|e| e.failure(cannot))?;
    let service = find(&status.services, name)?.clone();
    desk.remember(&status).await;
    Ok(service)
}

/// # Errors
/// There is none of this name: the nearest one is named.
pub fn find<'a>(services: &'a [v1::Service], name: &str) -> Result<&'a v1::Service, Failure> {
    services.iter().find(|s| s.name == name).ok_or_else(|| {
        let failure = Failure::no(format!("there is no service `{}`", crate::render::plain(name)));
        match nearest(name, services.iter().map(|s| s.name.clone())) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("`disco service ls` lists them"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_not_there_is_named_with_the_nearest_that_is() {
        let services: Vec<v1::Service> = ["web", "worker"].map(|name| v1::Service { name: name.into(), ..Default::default() }).into();
        assert_eq!(find(&services, "web").map(|s| s.name.as_str()), Ok("web"));
        for (wanted, hint) in
            [("wbe", "did you mean `web`?"), ("wroker", "did you mean `worker`?"), ("database", "`disco service ls` lists them")]
        {
            let expected = Failure::no(format!("there is no service `{wanted}`")).hint(hint);
            assert_eq!(find(&services, wanted), Err(expected));
        }
    }
}
