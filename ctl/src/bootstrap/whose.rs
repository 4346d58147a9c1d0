//! Whose a machine is: what is found on it, held against what the cluster knows.
//!
//! A list of hosts is written by hand, and one machine may stand in it under a name it did not have before. To a cluster
//! that knows nodes by their addresses it looks new, with a foreign node on it: whatever wipes a machine asks here first.

use super::inventory::{Entry, Inventory};
use super::steps::host_of;
use crate::install::machine::Found;
use crate::message::Failure;
use agent::drivers::provider::unit;
use agent::model::ids::ClusterId;
use proto::v1;

/// A machine that is a node of another cluster is left alone.
///
/// # Errors
/// It is one.
pub fn check_owner(entry: &Entry, found: &Found, cluster: ClusterId) -> Result<(), Failure> {
    match &found.cluster {
        Some(other) if *other != cluster.to_string() => {
            Err(Failure::no(format!("host {} is a node of another cluster ({other})", entry.address))
                .hint("end that one with `disco destroy` in its own folder, or remove /var/lib/disco there if nothing of it is needed"))
        }
        _ => Ok(()),
    }
}

/// The user that a node runs as comes and goes with the node, so it is nobody else's.
///
/// # Errors
/// The machine has such a user, who was there before us.
pub fn check_user(entry: &Entry, found: &Found) -> Result<(), Failure> {
    let Some(home) = &found.stranger else { return Ok(()) };
    Err(Failure::no(format!("there is a user `{}` on host {} that is not ours: its home is {home}", unit::USER, entry.address))
        .hint(format!("a node runs as a user of that name with the home {}; rename the other one", unit::DATA_DIR)))
}

/// Nor may it be the one we log in as: it would be ended in the middle of its work.
///
/// # Errors
/// A listed host has it.
pub fn check_logins(inventory: &Inventory) -> Result<(), Failure> {
    match inventory.listed().into_iter().find(|entry| entry.user == unit::USER) {
        Some(entry) => Err(Failure::broke(format!("cannot log in to host {} as `{}`", entry.address, unit::USER))
            .because("a node runs as a user of that name, made when it is installed and removed with it")
            .hint("give another `user` in client.js")),
        None => Ok(()),
    }
}

/// Whether a node is the entry's own, or what is left of a former one.
pub fn is_at(entry: &Entry, node: &v1::Node) -> bool {
    node.address == entry.node_address() && node.state != "left"
}

/// The member that this machine is under another address than the entry's. One that is joining may be in the list before
/// its identity is on its disk; its configuration says who it will be.
pub fn known_elsewhere<'a>(nodes: &'a [v1::Node], entry: &Entry, found: &Found) -> Option<&'a v1::Node> {
    let is_it = |node: &v1::Node| match &found.node {
        Some(id) => node.id == *id,
        None => found.advertised.as_ref() == Some(&node.address),
    };
    nodes.iter().find(|node| node.state != "left" && node.address != entry.node_address() && is_it(node))
}

/// # Errors
/// The machine is a member under another name: listed by this one, it would be wiped.
pub fn check_name(nodes: &[v1::Node], entry: &Entry, found: &Found) -> Result<(), Failure> {
    let Some(node) = known_elsewhere(nodes, entry, found) else { return Ok(()) };
    let known = host_of(&node.address).trim_matches(['[', ']']);
    Err(Failure::no(format!("host {} is node {}, known as {}", entry.address, node.name, node.address))
        .hint(format!("list it as `{known}`: a node keeps the address it joined with")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, user: &str) -> Entry {
        Entry { ordinal: 4, address: address.into(), user: user.into(), port: 22, host_key: None, listed: true, touched: false }
    }

    fn node(id: &str, address: &str, state: &str) -> v1::Node {
        v1::Node { id: id.into(), name: format!("n{id}"), address: address.into(), state: state.into(), ..Default::default() }
    }

    #[test]
    fn a_member_that_is_listed_by_another_name_is_recognised() {
        let nodes = [node("1", "10.0.0.11:5080", "ready"), node("2", "10.0.0.12:5080", "ready"), node("3", "[fd00::3]:5080", "left")];
        let has = |id: Option<&str>, advertised: &str| Found {
            node: id.map(str::to_owned),
            advertised: Some(advertised.to_owned()),
            configured: true,
            ..Found::default()
        };
        let (by_address, by_name) = (entry("10.0.0.12", "admin"), entry("pi2.local", "admin"));
        let refused = |entry: &Entry, found: &Found| check_name(&nodes, entry, found).err().map(|failure| failure.in_one_line());
        let told = refused(&by_name, &has(Some("2"), "10.0.0.12:5080")).expect("it is node 2");
        assert!(told.contains("host pi2.local is node n2, known as 10.0.0.12:5080"), "{told}");
        assert!(refused(&by_name, &has(None, "10.0.0.12:5080")).is_some(), "it is joining");
        for (entry, found, why) in [
            (&by_address, has(Some("2"), "10.0.0.12:5080"), "it is listed by its address"),
            (&by_name, has(Some("3"), "[fd00::3]:5080"), "its node has left"),
            (&by_name, has(Some("9"), "10.0.0.12:5080"), "nobody knows its node, and the address is another machine's by now"),
            (&by_name, has(None, "10.0.0.19:5080"), "nobody is at the address it was to have"),
            (&by_name, Found::default(), "nothing is on it"),
        ] {
            assert_eq!(refused(entry, &found), None, "{why}");
        }
    }

    #[test]
    fn a_user_of_the_nodes_name_is_neither_taken_over_nor_logged_in_as() {
        let host = entry("10.0.0.12", "admin");
        assert!(check_user(&host, &Found::default()).is_ok());
        let told = check_user(&host, &Found { stranger: Some("/home/disco".into()), ..Found::default() }).unwrap_err().in_one_line();
        assert!(told.contains("there is a user `disco` on host 10.0.0.12 that is not ours: its home is /home/disco"), "{told}");
        let list = |user: &str| Inventory { key: None, hosts: vec![entry("10.0.0.11", "admin"), entry("10.0.0.12", user)] };
        assert!(check_logins(&list("admin")).is_ok());
        assert!(check_logins(&list("disco")).unwrap_err().in_one_line().contains("cannot log in to host 10.0.0.12 as `disco`"));
        let mut gone = list("disco");
        gone.hosts[1].listed = false;
        assert!(check_logins(&gone).is_ok(), "what is only to be ended is ended as before");
    }
}
