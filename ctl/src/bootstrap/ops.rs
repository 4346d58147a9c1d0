//! Answers what a running script asks: `cluster.scale` and the like, `key.get`, `ask`.

use super::aws;
use super::hosts;
use super::options::Options;
use super::project::Project;
use super::steps;
use crate::client::mismatched;
use crate::message::Failure;
use crate::out::Out;
use crate::render::{json, plain};
use agent::drivers::script::HostOps;
use proto::v1::{self, read_reply, read_request, write_request};
use serde_json::Value;
use smol::lock::Mutex;
use std::cell::RefCell;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::pin::Pin;

/// An answer is a word; more is not read.
const ANSWER_BYTES_MAX: u64 = 1024;

pub struct Ops {
    /// One step at a time, however many promises a script makes.
    project: Mutex<Project>,
    out: Out,
    yes: bool,
    /// The last failure, whole: what a script sees of it is one line.
    failure: RefCell<Option<Failure>>,
}

impl Ops {
    pub fn new(project: Project, yes: bool) -> Ops {
        Ops { out: project.out, project: Mutex::new(project), yes, failure: RefCell::new(None) }
    }

    pub async fn project(&self) -> smol::lock::MutexGuard<'_, Project> {
        self.project.lock().await
    }

    pub fn into_project(self) -> Project {
        self.project.into_inner()
    }

    pub fn take_failure(&self) -> Option<Failure> {
        self.failure.take()
    }

    async fn answer(&self, op: &str, args: &Value) -> Result<Value, Failure> {
        if op == "ask" {
            return Ok(ask(self.out, self.yes, args["question"].as_str().unwrap_or_default()).await?.into());
        }
        let mut project = self.project.lock().await;
        let options = Options::read(&args["cluster"]).ok_or_else(|| Failure::broke(format!("{op} without a cluster")))?;
        if let Some(site) = project.site.as_ref().filter(|s| s.cluster.name != options.name) {
            return Err(Failure::broke(format!("this folder's cluster is `{}`, not `{}`", site.cluster.name, options.name)));
        }
        match op {
            "cluster.healthy" => Ok(steps::healthy(&mut project).await?.into()),
            verb if aws::is_meant(&project) && on_aws(verb) => self.aws(&mut project, verb, args).await,
            "cluster.start_instance" => steps::start_instance(&mut project).await,
            "cluster.attach_ip" | "cluster.primary_ip" => steps::first_address(&mut project).map(Value::from),
            "cluster.set_key_pair" if hosts::is_meant(&project) => {
                hosts::set_key_pair(&mut project, args["private"].as_str().unwrap_or_default())
            }
            "cluster.ssh_install" if hosts::is_meant(&project) => hosts::ssh_install(&mut project).await.map(|()| Value::Null),
            "cluster.set_key_pair" => nothing_to_do(&project, "set_key_pair", "local instances are not reached over SSH"),
            "cluster.ssh_install" => nothing_to_do(&project, "ssh_install", "a local instance runs its own copy of discod"),
            "cluster.join" => nothing_to_do(&project, "join", "nodes join by themselves"),
            "cluster.scale" => {
                let nodes = args["nodes"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                steps::scale(&mut project, &options, nodes).await.map(|()| Value::Null)
            }
            "cluster.destroy" => steps::destroy(&mut project).await.map(|()| Value::Null),
            "cluster.nodes" => Ok(status(&mut project).await?.nodes.iter().map(json::node).collect()),
            "cluster.leader" => Ok(status(&mut project).await?.nodes.iter().find(|n| n.leader).map_or(Value::Null, json::node)),
            "cluster.services" => Ok(status(&mut project).await?.services.iter().map(json::service).collect()),
            "key.get" | "key.set" | "key.delete" => key(&mut project, op, args).await,
            other => Err(Failure::broke(format!("`{other}` does not work in client.js"))),
        }
    }
}

/// What is another thing there than anywhere else.
fn on_aws(op: &str) -> bool {
    let verbs = ["set_key_pair", "start_instance", "attach_ip", "primary_ip", "ssh_install"];
    op.strip_prefix("cluster.").is_some_and(|verb| verbs.contains(&verb))
}

impl Ops {
    async fn aws(&self, project: &mut Project, op: &str, args: &Value) -> Result<Value, Failure> {
        let text = |name: &str| args[name].as_str().unwrap_or_default();
        match op {
            "cluster.set_key_pair" => aws::set_key_pair(project, text("private"), text("public")).map(|()| Value::Null),
            "cluster.start_instance" => aws::start_instance(project, args).await,
            "cluster.attach_ip" => aws::attach_ip(project).map(Value::from),
            "cluster.primary_ip" => aws::primary_ip(project).map(Value::from),
            _ => aws::ssh_install(project).await.map(|()| Value::Null),
        }
    }
}

impl HostOps for Ops {
    fn call<'a>(&'a self, op: &'a str, args: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        Box::pin(async move {
            self.answer(op, &args).await.map_err(|failure| {
                let line = failure.in_one_line();
                self.failure.replace(Some(failure));
                line
            })
        })
    }

    fn console(&self, level: &str, text: &str) {
        show(self.out, level, text);
    }
}

/// A line of a script's console, for the person.
pub fn show(out: Out, level: &str, text: &str) {
    let label = match level {
        "warn" => "warning: ",
        "error" => "error: ",
        _ => "",
    };
    for line in text.lines() {
        out.say(format!("{label}{}", plain(line)));
    }
}

fn nothing_to_do(project: &Project, verb: &str, why: &str) -> Result<Value, Failure> {
    project.progress.line(format!("{verb}: nothing to do ({why})"));
    Ok(Value::Null)
}

async fn status(project: &mut Project) -> Result<v1::Status, Failure> {
    project.cluster_client()?.status(false).await.map_err(|e| e.failure("the cluster does not tell its status"))
}

async fn key(project: &mut Project, op: &str, args: &Value) -> Result<Value, Failure> {
    let key = args["key"].as_str().unwrap_or_default().to_owned();
    let client = project.cluster_client()?;
    let written = match op {
        "key.get" => {
            let what = format!("cannot read key `{key}`");
            let answer = client.read(false, read_request::Query::KvGet(v1::KvGet { key })).await.map_err(|e| e.failure(what.as_str()))?;
            let read_reply::Result::KvValue(found) = answer else { return Err(mismatched().failure(what)) };
            let text = found.value.map(String::from_utf8).transpose().map_err(|_| Failure::no(what).because("its value is no text"))?;
            return Ok(text.into());
        }
        "key.set" => {
            let value = args["value"].as_str().unwrap_or_default().as_bytes().to_vec();
            client.write(write_request::Op::KvSet(v1::KvSet { key: key.clone(), value })).await
        }
        _ => client.write(write_request::Op::KvDelete(v1::KvDelete { key: key.clone() })).await,
    };
    written.map(|_| Value::Null).map_err(|e| e.failure(format!("cannot change key `{key}`")))
}

/// True only for "yes" or "y". `yes` answers for the person; without a terminal there is nobody to ask. Other work goes on
/// while a person thinks: a script's clocks are among it.
///
/// # Errors
/// The terminal cannot be read.
pub async fn ask(out: Out, yes: bool, question: &str) -> Result<bool, Failure> {
    let question = plain(question);
    if yes {
        out.say(format!("{question} yes (--yes)"));
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        out.say(format!("{question} no (there is no terminal to ask at; --yes answers yes)"));
        return Ok(false);
    }
    out.say(format!("{question} [yes/no]"));
    let answer = smol::unblock(|| {
        let mut answer = String::new();
        io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(|e| Failure::broke("cannot read the answer").caused_by(&e))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "yes" | "y"))
}
