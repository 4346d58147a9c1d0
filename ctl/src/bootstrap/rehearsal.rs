//! `disco plan` before there is a cluster: client.js runs, and what it asks for is written down instead of made.
//!
//! Nothing happens: its questions are shown and answered with no, and `run` and `fetch`, which would really be done, are
//! refused by name.

use super::aws::{self, wish};
use super::ops;
use super::options::Options;
use super::prices;
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::out::Out;
use crate::render::plain;
use agent::drivers::provider::aws::site::{DISK_GIB, INSTANCE_TYPE, Wish};
use agent::drivers::script::{Arg, HostOps, Modules, ScriptError, ScriptHost, ScriptOptions};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::pin::Pin;

const FILE: &str = "client.js";
/// What a script is told while there is none.
const NOWHERE: &str = "0.0.0.0";

#[derive(Default)]
struct Asked {
    wish: Option<Wish>,
    nodes: u32,
}

struct Stand {
    asked: RefCell<Asked>,
    out: Out,
}

impl HostOps for Stand {
    fn call<'a>(&'a self, op: &'a str, args: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        let mut asked = self.asked.borrow_mut();
        let answer = match op {
            "ask" => {
                self.out.say(format!("{} no (a plan agrees to nothing)", plain(args["question"].as_str().unwrap_or_default())));
                Value::Bool(false)
            }
            "cluster.healthy" => Value::Bool(false),
            "cluster.start_instance" => {
                asked.wish = Some(wish(&args));
                asked.nodes = asked.nodes.max(1);
                json!({ "id": "(new)", "address": NOWHERE, "private_address": NOWHERE, "state": "pending" })
            }
            "cluster.attach_ip" | "cluster.primary_ip" => NOWHERE.into(),
            "cluster.scale" => {
                asked.nodes = args["nodes"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                Value::Null
            }
            "cluster.nodes" | "cluster.services" => json!([]),
            _ => Value::Null,
        };
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn console(&self, level: &str, text: &str) {
        ops::show(self.out, level, text);
    }
}

/// # Errors
/// The script fails.
pub async fn run(context: &Context, out: Out) -> Result<Exit, Failure> {
    let failed = |e: ScriptError| Failure::no("cannot plan").caused_by(&e);
    let stand = Stand { asked: RefCell::default(), out };
    let options = ScriptOptions { rehearsal: true, ..ScriptOptions::new(Modules::Folder(context.folder.clone())) };
    let mut host = ScriptHost::start(options).await.map_err(failed)?;
    host.load(FILE, &stand).await.map_err(failed)?;
    let value = host.call("init", Vec::new(), &stand).await.map_err(failed)?;
    let options = Options::read(&value).ok_or_else(|| Failure::no("cannot plan").because("init() of client.js returned no cluster"))?;
    host.call("bootstrap", vec![Arg::Handle], &stand).await.map_err(failed)?;
    let asked = stand.asked.into_inner();
    if out.json {
        let nodes = asked.nodes;
        return out.document(&json!({ "cluster": options.name, "provider": options.provider, "nodes": nodes })).map(|()| Exit::Changes);
    }
    out.say(format!("there is no cluster yet; `disco bootstrap` makes `{}`:", plain(&options.name)));
    if options.provider == aws::KIND {
        out.data(bill(&asked))?;
        out.say(format!("prices are of {}, on demand, without traffic; the bill is Amazon's", prices::AS_OF));
    } else {
        out.data(format!("+ {} nodes on the {} provider, without cost\n", asked.nodes, options.provider))?;
    }
    Ok(Exit::Changes)
}

/// One line a thing and the sum, US dollars a month.
fn bill(asked: &Asked) -> String {
    let wish = asked.wish.clone().unwrap_or_default();
    let (nodes, kind) = (asked.nodes, wish.instance_type.as_deref().unwrap_or(INSTANCE_TYPE));
    let gib = wish.disk_gib.unwrap_or(DISK_GIB);
    let machines = prices::machine(kind).map(|price| price * f64::from(nodes));
    let (disks, addresses) = (prices::disk(gib) * f64::from(nodes), prices::address() * f64::from(nodes));
    let paid = if wish.spot { "spot, at most" } else { "on demand" };
    let shown = machines.map_or("price unknown".to_owned(), |price| format!("${price:.2} a month"));
    let sum = machines.map_or("more than ".to_owned(), |_| "about ".to_owned());
    format!(
        "+ {nodes} x {kind}, {paid}: {shown}\n+ {nodes} x disk of {gib} GiB, encrypted: ${disks:.2} a month\n\
         + {nodes} x public IPv4 address, one of which follows the leader: ${addresses:.2} a month\n\
         + key pair, security group, role: free\n= {sum}${:.2} a month\n",
        machines.unwrap_or(0.0) + disks + addresses
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_small_machines_cost_what_they_cost() {
        let text = bill(&Asked { wish: Some(Wish::default()), nodes: 3 });
        assert!(text.contains("+ 3 x t4g.micro, on demand: $18.40 a month"), "{text}");
        assert!(text.ends_with("= about $31.27 a month\n"), "{text}");
        let unknown = Wish { instance_type: Some("u7i.12tb".into()), ..Wish::default() };
        let text = bill(&Asked { wish: Some(unknown), nodes: 1 });
        assert!(text.contains("price unknown") && text.contains("= more than $"), "{text}");
    }
}
