//! What the data dir must remember of what happens, besides the store: that the cluster's first state is durable,
//! where the managers are, and what this node is to run.

use super::data_dir::{DataDir, Identity};
use crate::model::{io::Input, query::Way, task::Orders};

pub struct Notebook {
    data_dir: DataDir,
    identity: Identity,
    managers: Vec<Way>,
}

impl Notebook {
    /// `managers` as the data dir remembers them.
    pub fn new(data_dir: DataDir, identity: Identity, managers: Vec<Way>) -> Notebook {
        Notebook { data_dir, identity, managers }
    }

    /// Sees an input before the replica does.
    pub fn note(&mut self, input: &Input) {
        match input {
            Input::Persisted { .. } if self.identity.originating => self.originated(),
            Input::ReportAnswered { managers, .. } if !managers.is_empty() => {
                let mut known: Vec<Way> = managers.iter().map(|peer| Way::to(peer.node, peer.address.clone())).collect();
                known.sort_by_key(|way| way.node);
                self.remember(known);
            }
            _ => {}
        }
    }

    /// What this node is to run from now on.
    pub fn assign(&self, orders: &Orders) {
        if let Err(error) = self.data_dir.save_assignment(orders) {
            // Without it a restart that finds no manager restarts no task, and nothing is wrong now.
            log::error!("{error}");
        }
    }

    /// From now on a store without a seat means that the seat was given back, never that the cluster begins.
    fn originated(&mut self) {
        self.identity.originating = false;
        if let Err(error) = self.data_dir.save_identity(&self.identity) {
            // The store has the seat; the next start sees it there and tries again.
            log::error!("{error}");
        }
    }

    fn remember(&mut self, managers: Vec<Way>) {
        if managers == self.managers {
            return;
        }
        self.managers = managers;
        if let Err(error) = self.data_dir.save_managers(&self.managers) {
            // Worse to find the cluster by after a restart, but nothing is wrong now.
            log::warn!("{error}");
        }
    }
}
