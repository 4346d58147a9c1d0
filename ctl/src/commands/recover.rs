//! `disco recover`: the cluster goes on without a majority that was lost for good.
//!
//! Every known manager is asked what it has and whom it misses; the one whose log reaches farthest goes on. That the missing
//! ones are gone the provider confirms (their instances are terminated, and the survivor's own is seen to run), or a person
//! does by typing the cluster's name.
//! Silence alone never is enough: if they come back together, there are two clusters.

use super::Desk;
use crate::bootstrap::project::provider_of;
use crate::client::{CallError, Client, Patience};
use crate::context::JOURNAL;
use crate::journal::{Journal, What};
use crate::message::{Exit, Failure};
use crate::out::now_ms;
use agent::model::{
    instance::{InstanceSeen, InstanceState},
    recovery::{Survivor, who_goes_on},
};
use proto::{Spawner, v1};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

const WHAT: &str = "cannot recover the cluster";
/// In the journal.
const STEP: &str = "recover";
/// Of one node; a longer silence is taken for one.
const PATIENCE: Patience = Patience { unreached: Duration::from_secs(2), answered: Duration::from_secs(12) };
const CONSENT_BYTES_MAX: u64 = 256;

pub async fn run(mut desk: Desk, spawner: &Spawner, consent: Option<String>) -> Result<Exit, Failure> {
    // A bootstrap that starts instances, or a second recovery, must not happen meanwhile.
    let _lock = if desk.context.socket.is_none() { Some(desk.context.lock()?) } else { None };
    let (mut doors, asked) = doors(&desk, spawner)?;
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    for (place, door) in doors.iter_mut().enumerate() {
        match door.recover(Vec::new()).await {
            Ok(reply) => found.push((place, reply)),
            Err(CallError::Refused { why, .. }) if why.contains("nothing to recover") => {
                return Err(Failure::no(WHAT).because(why));
            }
            Err(error) => silent.push(format!("{}: {}", asked[place], error.failure(WHAT).in_one_line())),
        }
    }
    let said: Vec<Survivor<String>> = found.iter().map(|(_, reply)| said(reply)).collect();
    let Some((chosen, lost)) = who_goes_on(&said) else {
        let failure = silent.into_iter().fold(Failure::no(WHAT), Failure::because);
        return Err(failure.hint("ask a manager that lives by its own socket: `disco --socket D/control.sock recover`"));
    };
    let (place, survivor) = found.swap_remove(chosen);
    let lost: Vec<v1::Node> = survivor.missing.iter().filter(|n| lost.contains(&n.id)).cloned().collect();
    if lost.is_empty() {
        return Err(Failure::no(WHAT).because(format!("{} misses no manager; a leader is being elected", survivor.name)));
    }
    let names: Vec<String> = lost.iter().map(|n| format!("{} ({})", n.name, n.address)).collect();
    silent.iter().for_each(|who| desk.out.say(format!("no answer from {who}")));
    desk.out.say(format!("{} has the newest log of those that answer: it ends at index {}", survivor.name, survivor.last_index));
    desk.out.say("what was acknowledged beyond that, and only by those lost, is lost");
    desk.out.say(format!("lost, and removed for good: {}", names.join(", ")));
    if let Some(words) = confirmed_by_provider(&desk, &mut doors[place], &survivor.node, &lost).await? {
        desk.out.say(words);
    } else if !consented(&mut desk, spawner, consent, &asked[place]).await? {
        return Err(Failure::no("nothing was changed").hint("give the cluster's name with --consent if the lost managers never come back"));
    }
    let mut note = Note::begin(&desk, &survivor.name, &names)?;
    let done = match doors[place].recover(lost.into_iter().map(|n| n.id).collect()).await {
        Ok(done) => done,
        Err(error) => {
            let failure = error.failure(WHAT);
            note.end(What::Failed { step: STEP.into(), why: failure.in_one_line() })?;
            return Err(failure);
        }
    };
    note.end(What::Done { step: STEP.into(), result: format!("{} goes on from index {}", survivor.name, survivor.last_index) })?;
    if desk.out.json {
        desk.out.document(&serde_json::json!({ "node": survivor.node, "last_index": survivor.last_index, "index": done.index }))?;
    } else {
        desk.out.say(format!("{} goes on alone; the others join it again by themselves", survivor.name));
    }
    Ok(Exit::Done)
}

fn said(reply: &v1::RecoverReply) -> Survivor<String> {
    let missing = reply.missing.iter().map(|n| n.id.clone()).collect();
    Survivor { node: reply.node.clone(), last_term: reply.last_term, last_index: reply.last_index, missing }
}

/// The folder's journal, if this is done from a folder: what was given up is on disk before it is.
struct Note(Option<Journal>);

impl Note {
    fn begin(desk: &Desk, survivor: &str, lost: &[String]) -> Result<Note, Failure> {
        let path = desk.context.file(JOURNAL);
        if desk.context.socket.is_some() || !path.exists() {
            return Ok(Note(None));
        }
        let journal = Journal::open(&path).map_err(|e| Failure::broke(WHAT).caused_by(&e))?;
        let mut note = Note(Some(journal));
        note.end(What::Begin { step: STEP.into() })?;
        note.end(What::Done { step: format!("{STEP}: consent"), result: format!("{survivor} goes on without {}", lost.join(", ")) })?;
        Ok(note)
    }

    fn end(&mut self, what: What) -> Result<(), Failure> {
        let Some(journal) = &mut self.0 else { return Ok(()) };
        journal.write(now_ms(), what).map_err(|e| Failure::broke(WHAT).caused_by(&e))
    }
}

/// One client a node: each answers for itself.
fn doors(desk: &Desk, spawner: &Spawner) -> Result<(Vec<Client>, Vec<String>), Failure> {
    if let Some(path) = &desk.context.socket {
        return Ok((vec![Client::through_socket(path.clone(), spawner).with_patience(PATIENCE)], vec![path.display().to_string()]));
    }
    let Some(identity) = desk.context.identity()? else {
        return Err(Failure::no(WHAT).because("this folder has no certificate".to_owned()));
    };
    let addresses = desk.client.addresses();
    let one = |address: &String| Client::with_certificate(&identity, std::slice::from_ref(address), spawner);
    let doors = addresses.iter().map(|address| Ok(one(address)?.with_patience(PATIENCE))).collect::<Result<_, Failure>>()?;
    Ok((doors, addresses))
}

/// What the provider says, if it says that every one of them is gone.
async fn confirmed_by_provider(desk: &Desk, door: &mut Client, survivor: &str, lost: &[v1::Node]) -> Result<Option<String>, Failure> {
    let Some((cluster, id)) = desk.context.own_cluster()?.and_then(|c| Some((c.clone(), c.cluster_id()?))) else { return Ok(None) };
    let provider = provider_of(&desk.context, id, &cluster)?;
    let seen = provider.describe().map_err(|e| Failure::broke(WHAT).caused_by(&e))?;
    // What the survivor runs on it must see: with another account's credentials it sees nothing, whatever runs.
    let status = door.status(true).await.ok();
    let here = status.and_then(|status| status.nodes.into_iter().find(|node| node.id == survivor)?.instance);
    let gone = here.is_some_and(|here| are_gone(&seen, &here, lost));
    Ok(gone.then(|| "the provider confirms it: their instances are gone".to_owned()))
}

/// Whether these instances are all that there are of the cluster, the one that runs `here` among them, and none of those lost.
fn are_gone(seen: &[InstanceSeen], here: &str, lost: &[v1::Node]) -> bool {
    let state = |id: &str| seen.iter().find(|instance| instance.id == id).map(|instance| instance.state);
    let gone = |node: &v1::Node| node.instance.as_deref().is_some_and(|id| state(id).is_none_or(|s| s == InstanceState::Terminated));
    state(here) == Some(InstanceState::Running) && lost.iter().all(gone)
}

async fn consented(desk: &mut Desk, spawner: &Spawner, consent: Option<String>, asked: &str) -> Result<bool, Failure> {
    let name = match desk.context.socket.is_none().then(|| desk.context.cluster()).transpose()?.flatten() {
        Some(cluster) => cluster.name,
        None => {
            let mut client = Client::through_socket(PathBuf::from(asked), spawner).with_patience(PATIENCE);
            client.status(true).await.map_err(|e| e.failure(WHAT))?.cluster
        }
    };
    if let Some(typed) = consent {
        return match typed == name {
            true => Ok(true),
            false => Err(Failure::no(format!("the cluster is called `{name}`, not `{typed}`: nothing was changed"))),
        };
    }
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    desk.out.say("If they come back together, there are two clusters. Type the cluster's name to go on without them:");
    let mut typed = String::new();
    let read = io::stdin().lock().take(CONSENT_BYTES_MAX).read_line(&mut typed);
    read.map_err(|e| Failure::broke("cannot read the answer").caused_by(&e))?;
    Ok(typed.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_believed_only_if_it_sees_the_survivors_machine_run() {
        use InstanceState::{Running, Stopped, Terminated};
        let lost = |instance: Option<&str>| v1::Node { instance: instance.map(str::to_owned), ..Default::default() };
        let both = [lost(Some("i-2")), lost(Some("i-3"))];
        let cases: [(&[(&str, InstanceState)], bool); 7] = [
            (&[("i-1", Running)], true),
            (&[("i-1", Running), ("i-2", Terminated)], true),
            (&[("i-1", Running), ("i-2", Stopped)], false),
            (&[("i-1", Running), ("i-2", Running)], false),
            (&[], false),
            (&[("i-4", Running)], false),
            (&[("i-1", Stopped)], false),
        ];
        for (listed, expected) in cases {
            let seen = |(id, state): &(&str, InstanceState)| InstanceSeen {
                id: (*id).to_owned(),
                operation: None,
                address: String::new(),
                state: *state,
                public_address: String::new(),
            };
            let seen: Vec<InstanceSeen> = listed.iter().map(seen).collect();
            assert_eq!(are_gone(&seen, "i-1", &both), expected, "{listed:?}");
            assert!(!are_gone(&seen, "i-1", &[lost(None)]), "of a machine that nobody launched nothing is known");
        }
    }
}
