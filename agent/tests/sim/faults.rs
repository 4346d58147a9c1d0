//! What breaks, when, and how it comes back.

use crate::{
    counts::Count,
    world::{Event, World},
};
use agent::model::{ids::MemberId, instance::InstanceState, io::Input, service::Roll};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Partition,
    Heal,
    Crash,
    Pause,
    ClockJump,
    DiskFull,
    /// An instance's process ends and nobody starts it but the leader.
    Die,
    /// An instance is gone, disk and all.
    Vanish,
    /// A watchdog starts a process again.
    Restart(usize),
}

impl World {
    pub fn begin_faults(&mut self) {
        for fault in [Fault::Partition, Fault::Crash, Fault::Pause, Fault::ClockJump, Fault::DiskFull, Fault::Die, Fault::Vanish] {
            self.schedule(fault);
        }
    }

    fn mean_gap(&self, fault: Fault) -> u64 {
        match fault {
            Fault::Partition => self.options.partition_every_ms,
            Fault::Crash => self.options.crash_every_ms,
            Fault::Pause => self.options.pause_every_ms,
            Fault::ClockJump => self.options.clock_jump_every_ms,
            Fault::DiskFull => self.options.disk_full_every_ms,
            Fault::Die => self.options.die_every_ms,
            Fault::Vanish => self.options.vanish_every_ms,
            Fault::Heal | Fault::Restart(_) => 0,
        }
    }

    fn schedule(&mut self, fault: Fault) {
        let gap = self.mean_gap(fault);
        if gap > 0 {
            self.later((1, 2 * gap), Event::Fault(fault));
        }
    }

    pub fn strike(&mut self, fault: Fault) {
        if let Fault::Restart(host) = fault {
            return self.at(self.now, Event::Boot { host });
        }
        if fault == Fault::Heal {
            return self.network.heal();
        }
        if self.mean_gap(fault) == 0 {
            return;
        }
        self.schedule(fault);
        let up: Vec<usize> = self.hosts().into_iter().filter(|host| self.is_up(*host)).collect();
        // Leaders are where it hurts.
        let leader = self.leader().filter(|_| self.rng.chance(350));
        let victim = leader.or_else(|| self.rng.pick(&up).copied());
        self.note(14, victim.unwrap_or(99) as u64, || format!("fault {fault:?} (n{victim:?})"));
        match (fault, victim) {
            (Fault::Partition, _) if up.len() > 1 => {
                self.network.partition(&up, victim, &mut self.rng, &mut self.counts);
                self.later(self.options.partition_ms, Event::Fault(Fault::Heal));
            }
            (Fault::Crash, Some(victim)) => self.crash_some(victim, &up),
            (Fault::Pause, Some(victim)) => {
                self.counts.add(Count::Pauses);
                let (low, high) = self.options.pause_ms;
                let until = self.now + self.rng.between(low, high);
                // Never sooner than before: what waits would come after what is newer.
                let machine = &mut self.machines[victim];
                machine.paused_until = machine.paused_until.max(until);
            }
            (Fault::ClockJump, Some(victim)) => {
                self.counts.add(Count::ClockJumps);
                let skew = self.rng.signed(self.options.skew_ms.max(60_000));
                self.machines[victim].skew_ms = skew;
                if let Some(running) = self.machines[victim].running() {
                    running.clock.skew_ms = skew;
                }
            }
            (Fault::DiskFull, Some(victim)) => {
                self.counts.add(Count::DisksFull);
                let (low, high) = self.options.disk_full_ms;
                self.machines[victim].full_until = self.now + self.rng.between(low, high);
            }
            (Fault::Die, Some(victim)) if self.machines[victim].instance.is_some() => {
                self.counts.add(Count::InstancesDied);
                self.stop_process(victim);
                if self.rng.chance(500) {
                    self.tasks_end(victim);
                }
            }
            (Fault::Vanish, _) => self.vanish(),
            _ => {}
        }
    }

    fn crash_some(&mut self, victim: usize, up: &[usize]) {
        if self.rng.chance(self.options.crash_all) {
            self.counts.add(Count::CrashesOfAll);
            up.iter().for_each(|host| self.crash(*host));
        } else if self.rng.chance(self.options.shutdown) && self.machines[victim].running().is_some() {
            self.counts.add(Count::Shutdowns);
            self.input(victim, Input::Shutdown);
            // Whoever asked a process to end kills it when it takes too long.
            let life = self.machines[victim].life;
            self.at(self.now + 5_000, Event::Tell { host: victim, life: Some(life), input: Input::StoreFailed { why: "killed".into() } });
            self.restart_later(victim);
        } else {
            self.crash(victim);
        }
    }

    /// Kill -9, or a stop by its own decision; a watchdog may start it again.
    pub fn crash(&mut self, host: usize) {
        if !self.is_up(host) {
            return;
        }
        self.counts.add(Count::Crashes);
        if self.leader() == Some(host) {
            self.counts.add(Count::LeadersCrashed);
            let state = self.replica(host).expect("a leader runs").state();
            if state.services.values().any(|service| service.roll == Roll::Going) {
                self.counts.add(Count::LeadersCrashedInRoll);
            }
        }
        self.stop_process(host);
        if self.machines[host].instance.is_none() || self.rng.chance(self.options.supervised) {
            self.restart_later(host);
        }
    }

    fn restart_later(&mut self, host: usize) {
        self.later(self.options.down_ms, Event::Fault(Fault::Restart(host)));
    }

    /// Takes an instance and its disk, but never so many that a majority of the voters' disks is gone.
    fn vanish(&mut self) {
        let Some((since, voters, joint)) = self.checkers.newest_voters() else { return };
        let seated = |member: &MemberId| {
            let at = |host: &usize| self.machines[*host].disk.durable.member == Some(*member) && !self.machines[*host].gone;
            (0..self.machines.len()).any(|host| at(&host))
        };
        // Who has not heard that the joint configuration is over still needs its old voters.
        let settled = |member: &MemberId| {
            let seats = |host: &usize| self.consensus(*host).is_some_and(|consensus| consensus.member() == *member);
            let host = (0..self.machines.len()).find(seats);
            host.and_then(|host| self.replica(host)).is_some_and(|replica| replica.applied() >= since)
        };
        // Nor does anybody know, while nobody leads, whether a change is in the logs that leaves it to one of them alone.
        let changing = self.leader().and_then(|leader| self.consensus(leader)).is_none_or(|group| group.membership().pending);
        if voters.len() < 3 || joint || changing || !voters.iter().all(|member| seated(member) && settled(member)) {
            return;
        }
        let candidates: Vec<usize> = self.hosts().into_iter().filter(|host| self.machines[*host].instance.is_some()).collect();
        let Some(victim) = self.rng.pick(&candidates).copied() else { return };
        if self.workload.vanished_at.is_some_and(|at| self.now < at + 8_000) {
            return;
        }
        self.workload.vanished_at = Some(self.now);
        self.counts.add(Count::InstancesVanished);
        self.note(15, victim as u64, || format!("n{victim} vanishes with its disk"));
        self.stop_process(victim);
        self.machines[victim].gone = true;
        self.tasks_end(victim);
        let id = self.machines[victim].instance.clone().expect("only instances vanish");
        self.cloud.set(&id, InstanceState::Terminated);
        if self.rng.chance(500) {
            self.cloud.instances.get_mut(&id).expect("it is known").vanished = true;
        }
    }

    /// Everything works again, and who can be started is started by the leader; or, if there is none, by a person.
    pub fn heal(&mut self) {
        self.options.heal();
        self.network.heal();
        // Who is paused goes on by itself, and soon: never sooner than what waits for it.
        for machine in &mut self.machines {
            machine.full_until = 0;
            machine.drift_ppm = 0;
        }
        let idle: Vec<usize> =
            self.hosts().into_iter().filter(|host| !self.is_up(*host) && self.machines[*host].instance.is_none()).collect();
        idle.into_iter().for_each(|host| self.boot_later(host));
    }

    /// `disco bootstrap` after a reboot: all stopped instances are started.
    pub fn start_all(&mut self) {
        self.note(16, 0, || "a person starts all stopped instances".into());
        let stopped: Vec<usize> = self.cloud.instances.values().filter(|i| i.state == InstanceState::Stopped).map(|i| i.host).collect();
        stopped.into_iter().for_each(|host| self.boot_later(host));
    }
}
