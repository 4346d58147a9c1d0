//! One CA gives way to another: what the log says of it, and who is not ready for what comes next.

use super::{State, apply::Outcome};
use crate::{
    logic::token,
    model::{
        authority::{Authorities, Certificate, Papers, Rotation, Stage},
        ids::NodeId,
        instance::{InstanceDesired, InstanceRecord},
    },
};

/// A CA's certificate of ours has about 350 bytes.
const CA_BYTES_MAX: usize = 4096;

impl State {
    /// Whom every node is to believe now.
    pub fn authorities(&self) -> Authorities {
        let stage = self.rotation.as_ref().map(|rotation| rotation.stage);
        let mut trusted: Vec<Certificate> =
            std::iter::once(&self.ca).chain(self.rotation.as_ref().map(|r| &r.ca)).cloned().map(Certificate).collect();
        let show_newest = stage == Some(Stage::Showing);
        if show_newest {
            trusted.reverse();
        }
        Authorities { trusted, certify: stage >= Some(Stage::Certifying), version: self.ca_version, show_newest }
    }

    /// Names of those that are not ready for the next stage.
    pub fn ca_waits_for(&self) -> Vec<String> {
        let Some(rotation) = &self.rotation else { return Vec::new() };
        let mark = token::ca_mark(if rotation.stage == Stage::Showing { &self.ca } else { &rotation.ca });
        let ready = |papers: Papers| match rotation.stage {
            Stage::Introduced => papers.believes == mark,
            Stage::Certifying => papers.certified == mark,
            Stage::Showing => papers.shows == mark,
        };
        let nodes = self.nodes.values().filter(|n| !self.is_leaving(n) && !ready(n.papers)).map(|n| n.name.clone());
        // What is launched shows a token that names the old CA, and a launch is repeated with the same token until it is answered.
        let comes = |i: &&InstanceRecord| i.id.is_none() || i.node.is_none() && i.desired == InstanceDesired::Running;
        let launched = self.instances.values().filter(|i| !i.ended()).filter(comes);
        let launched = launched.filter(|_| rotation.stage != Stage::Introduced);
        nodes.chain(launched.map(|i| i.id.clone().unwrap_or_else(|| i.pending_name()))).collect()
    }

    pub(super) fn ca_introduce(&mut self, ca: Vec<u8>) -> Outcome {
        match &self.rotation {
            Some(rotation) if rotation.ca == ca => return Outcome::Done,
            Some(_) => return Outcome::refused("taken", "another CA is taking over already".into()),
            None if ca.is_empty() || ca.len() > CA_BYTES_MAX || ca == self.ca => {
                return Outcome::refused("invalid", "this is no certificate of a new CA".into());
            }
            None => {}
        }
        self.rotation = Some(Rotation { ca, stage: Stage::Introduced });
        self.ca_version += 1;
        self.event("ca.introduced", "", "nodes learn to believe a new certificate authority");
        Outcome::Done
    }

    pub(super) fn ca_advance(&mut self, from: Stage, force: bool) -> Outcome {
        let waits = self.ca_waits_for();
        let Some(rotation) = &mut self.rotation else {
            return match from {
                // Somebody asked again, or somebody else did.
                Stage::Showing => Outcome::Done,
                Stage::Introduced | Stage::Certifying => Outcome::refused("invalid", "no CA is taking over".into()),
            };
        };
        if rotation.stage != from {
            return match from < rotation.stage {
                true => Outcome::Done,
                false => Outcome::refused("invalid", format!("the change is {}, not {} yet", rotation.stage.as_str(), from.as_str())),
            };
        }
        if !waits.is_empty() && !force {
            return Outcome::refused("waiting", format!("the CA is not replaced yet: {} are not ready", waits.join(", ")));
        }
        self.ca_version += 1;
        match from {
            Stage::Introduced => {
                rotation.stage = Stage::Certifying;
                self.event("ca.certifying", "", "nodes get certificates from the new certificate authority");
            }
            Stage::Certifying => {
                rotation.stage = Stage::Showing;
                std::mem::swap(&mut self.ca, &mut rotation.ca);
                self.event("ca.showing", "", "the new certificate authority is in force");
            }
            Stage::Showing => {
                self.rotation = None;
                for node in self.nodes.values_mut() {
                    node.papers = Papers::default();
                }
                let left = if waits.is_empty() { String::new() } else { format!("; left behind: {}", waits.join(", ")) };
                self.event("ca.replaced", "", &format!("only the new certificate authority is believed{left}"));
            }
        }
        Outcome::Done
    }

    pub(super) fn node_papers(&mut self, id: NodeId, papers: Papers) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        if self.rotation.is_some() {
            node.papers = papers;
        }
        Outcome::Done
    }
}
