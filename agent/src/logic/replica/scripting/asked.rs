//! What people ask the script: a plan, an expression. They wait in a line of their own, a short one.

use super::{Job, Purpose};
use crate::{
    logic::{
        replica::Replica,
        state::{NO_EARLIER_MODULES, check_modules},
    },
    model::{
        ids::Ticket,
        limits::SCRIPT_CALLS_MAX,
        query::Answer,
        script::{Hook, ModuleSet},
    },
};
use std::{collections::BTreeMap, sync::Arc};

impl Replica {
    pub(in crate::logic::replica) fn handle_plan(&mut self, ticket: Ticket, modules: Option<BTreeMap<String, String>>) {
        if self.leading.is_none() {
            let answer = self.elsewhere();
            return self.reply(ticket, answer);
        }
        let Some(modules) = modules.or_else(|| self.state.script.before().map(|set| set.files.clone())) else {
            return self.refuse(ticket, "not_found", NO_EARLIER_MODULES.into());
        };
        if let Err((code, why)) = check_modules(&modules) {
            return self.refuse(ticket, code, why);
        }
        let set = Arc::new(ModuleSet { version: 0, pushed_ms: self.state.stamp_ms, files: modules });
        self.ask_script(ticket, Job { hook: Hook::Configure, purpose: Purpose::Plan(ticket, set) });
    }

    pub(in crate::logic::replica) fn handle_eval(&mut self, ticket: Ticket, expression: String) {
        self.ask_script(ticket, Job { hook: Hook::Eval { expression }, purpose: Purpose::Eval(ticket) });
    }

    fn ask_script(&mut self, ticket: Ticket, job: Job) {
        if self.leading.is_none() {
            let answer = self.elsewhere();
            return self.reply(ticket, answer);
        }
        if !self.leads_settled() || self.script.asked.len() >= SCRIPT_CALLS_MAX {
            return self.reply(ticket, Answer::Busy);
        }
        self.script.asked.push_back(job);
    }

    pub(in crate::logic::replica) fn forget_script_ticket(&mut self, ticket: Ticket) {
        self.script.asked.retain(|job| job.ticket() != Some(ticket));
    }
}
