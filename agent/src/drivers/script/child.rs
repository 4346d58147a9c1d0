//! The executor process: reads what the host asks, runs the script, answers, and goes away when nobody asks.
//!
//! Two threads. The main one runs the script and otherwise sleeps on a queue of [`Event`]s. The other reads the
//! socket, so that the process ends with its host even while the script is in an endless loop. Everything this
//! process may hurt is bounded before the first line of a script is read: address space, files, priority.

use std::{
    cell::Cell,
    fs, io,
    os::unix::net::UnixStream,
    panic, process,
    rc::Rc,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use boa_engine::{JsValue, object::builtins::JsPromise};
use serde_json::Value;

use super::{
    bindings::Bridge,
    engine::{Engine, Progress, Trouble},
    frame::{self, Mode, Target, ToChild, ToHost},
    jobs::Jobs,
};
use crate::drivers::syscall::{self, Resource};

/// What wakes the script.
pub enum Event {
    Frame(ToChild),
    Fetched { id: u64, result: Result<Value, String> },
    Ran { id: u64, result: Result<Value, String> },
}

/// Stack of the threads that read, fetch and watch programs: enough for TLS, small against the memory limit.
pub const THREAD_STACK_BYTES: usize = 512 * 1024;
/// A script that has waited so long may wait longer: for a machine, for a person.
const REST_AFTER: Duration = Duration::from_millis(300);
/// A script that is called again and again never waits so long: then code that did not run within this long goes.
const CODE_KEPT: Duration = Duration::from_secs(1);
/// Scripts give way to everything else on the machine.
const NICE: i32 = 10;

/// The way to the host, and whether it knows that we run.
pub struct Line {
    socket: UnixStream,
    busy: Cell<bool>,
}

impl Line {
    /// A frame that always fits. Without a host there is nothing left to do.
    pub fn send(&self, frame: &ToHost) {
        if self.try_send(frame).is_err() {
            end_group();
        }
    }

    /// # Errors
    /// The frame is too large.
    pub fn try_send(&self, frame: &ToHost) -> io::Result<()> {
        let bytes = frame::encode(frame)?;
        if io::Write::write_all(&mut &self.socket, &bytes).is_err() {
            end_group();
        }
        Ok(())
    }

    fn set_busy(&self, busy: bool) {
        if self.busy.replace(busy) != busy {
            self.send(if busy { &ToHost::Busy } else { &ToHost::Waiting });
        }
    }
}

/// The main function of both binaries when their first argument is `__script`. Does not return: ends with 0 when
/// idle, with 2 if it was not started by a host, and otherwise by a signal that the host explains.
pub fn child_main() -> ! {
    let Some(descriptor) = syscall::take_descriptor_3() else {
        eprintln!("error: `__script` is how disco and discod start their script executor; it is not a command");
        process::exit(2);
    };
    // One arena: a second thread's would reserve 64 MiB of the address space that we are about to bound.
    syscall::tune_memory();
    panic::set_hook(Box::new(|info| {
        // The host reads this when it finds us dead.
        eprintln!("panic: {info}");
        process::abort();
    }));
    harmless();
    let socket = UnixStream::from(descriptor);
    match Executor::start(socket) {
        Ok(executor) => executor.run(),
        Err(e) => {
            eprintln!("cannot start the script executor: {e}");
            process::exit(1)
        }
    }
}

/// Best effort, each: a script runs as well without, and the limits that matter are set in `Executor::start`.
fn harmless() {
    let _ = syscall::close_descriptors_from(4);
    let _ = syscall::set_oom_score(1000);
    let _ = syscall::set_soft_limit(Resource::CoreSize, 0);
}

/// Ends this process and every program it started.
fn end_group() -> ! {
    let _ = syscall::signal_group(process::id(), syscall::SIGKILL);
    // Not the leader of a group: then there is only us.
    process::exit(0)
}

fn read_frames(socket: &UnixStream, events: &Sender<Event>) -> ! {
    while let Ok(Some(frame)) = frame::read(socket) {
        if events.send(Event::Frame(frame)).is_err() {
            break;
        }
    }
    end_group()
}

struct Executor {
    engine: Engine,
    bridge: Rc<Bridge>,
    events: Receiver<Event>,
    current: Option<(Task, JsPromise)>,
    idle: Duration,
    /// When code pages were let go of last.
    released: Instant,
}

enum Task {
    Load,
    Call { target: Target, mode: Mode },
}

impl Executor {
    fn start(socket: UnixStream) -> io::Result<Executor> {
        let first = frame::read(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let ToChild::Start { modules, memory_bytes, idle_ms, commands_max, rehearsal } = first else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not `start`"));
        };
        let (sender, events) = mpsc::channel();
        let (reading, to_main) = (socket.try_clone()?, sender.clone());
        thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(move || read_frames(&reading, &to_main))?;
        let line = Line { socket, busy: Cell::new(true) };
        let bridge = Rc::new(Bridge::new(Rc::new(Jobs::default()), line, sender, commands_max, rehearsal));
        let engine = Engine::new(Rc::clone(&bridge), modules).map_err(|e| io::Error::other(e.to_string()))?;
        // What we needed so far is the base; the script gets so much more. The hard limit stays, so that `run` can lift ours.
        syscall::set_soft_limit(Resource::AddressSpace, address_space()?.saturating_add(memory_bytes))?;
        // Making the engine ran much code that will not run again.
        let _ = syscall::release_code_pages();
        // Only now: on a busy machine a start that gives way may take longer than anybody waits. Best effort, as in `harmless`.
        let _ = syscall::lower_priority(NICE);
        bridge.line.send(&ToHost::Ready);
        Ok(Executor { engine, bridge, events, current: None, idle: Duration::from_millis(idle_ms), released: Instant::now() })
    }

    fn run(mut self) -> ! {
        loop {
            if let Some((task, promise)) = self.current.take() {
                let progress = self.engine.progress(&promise);
                self.advance(task, promise, progress);
            }
            match self.wait() {
                Some(event) => self.handle_event(event),
                None if self.current.is_none() && !self.bridge.line.busy.get() => process::exit(0),
                None => {}
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        let settled = match event {
            Event::Frame(ToChild::Load { file, mode }) => {
                self.bridge.mode.set(mode);
                let begun = self.engine.load(&file);
                return self.begin(Task::Load, begun);
            }
            Event::Frame(ToChild::Call { target, args, mode }) => {
                self.bridge.mode.set(mode);
                let begun = self.engine.call(&target, args, mode);
                return self.begin(Task::Call { target, mode }, begun);
            }
            Event::Frame(ToChild::Answer { id, result }) => self.engine.settle(id, result),
            Event::Frame(ToChild::Start { .. }) => Ok(()),
            Event::Fetched { id, result } => {
                self.bridge.fetches.handle_finished();
                self.engine.settle(id, result)
            }
            Event::Ran { id, result } => {
                self.bridge.commands.handle_finished();
                self.engine.settle(id, result)
            }
        };
        if let Err(trouble) = settled {
            self.finish(Err(trouble));
        }
    }

    fn begin(&mut self, task: Task, begun: Result<JsPromise, Trouble>) {
        match begun {
            Ok(promise) => self.current = Some((task, promise)),
            Err(trouble) => self.finish(Err(trouble)),
        }
    }

    fn advance(&mut self, task: Task, promise: JsPromise, progress: Progress) {
        let waits = self.bridge.waits_for_requests();
        match progress {
            Progress::Failed(trouble) => self.finish(Err(trouble)),
            // A hook is over when all it asked for is: `cluster.scale(3)` without `await` is done all the same.
            Progress::Returned(_) | Progress::Running if waits => self.current = Some((task, promise)),
            Progress::Returned(value) => {
                let answer = self.answer(&task, value);
                self.finish(answer);
            }
            Progress::Running if self.bridge.jobs.poll_deadline().is_some() => self.current = Some((task, promise)),
            Progress::Running => {
                self.finish(Err(Trouble {
                    message: "it waits for a promise that nothing can resolve any more: no timer and no request is pending".to_owned(),
                    stack: String::new(),
                }));
            }
        }
    }

    fn answer(&mut self, task: &Task, value: JsValue) -> Result<ToHost, Trouble> {
        match task {
            Task::Load => Ok(ToHost::Loaded { hooks: self.engine.hooks() }),
            Task::Call { target, mode } => Ok(ToHost::Done { value: self.engine.result(target, value, *mode)? }),
        }
    }

    /// Ends the current task and drops what it left behind.
    fn finish(&mut self, answer: Result<ToHost, Trouble>) {
        self.current = None;
        self.bridge.jobs.clear();
        self.bridge.forget_requests();
        self.bridge.fetches.clear();
        self.bridge.commands.clear();
        let last = self.bridge.console.borrow_mut().finish();
        self.bridge.show(last);
        let failed = |trouble: Trouble| ToHost::Failed { message: trouble.message, stack: trouble.stack };
        let answer = answer.unwrap_or_else(failed);
        if let Err(e) = self.bridge.line.try_send(&answer) {
            self.bridge.line.send(&ToHost::Failed { message: format!("the result is too large: {e}"), stack: String::new() });
        }
        // The host stopped its clock with the answer.
        self.bridge.line.busy.set(false);
        if self.released.elapsed() >= CODE_KEPT {
            self.released = Instant::now();
            rest();
        }
    }

    /// Sleeps until something can run. `None`: a timer is due, a second of console output is over, or we are idle.
    fn wait(&mut self) -> Option<Event> {
        let deadline = match self.current {
            None => Some(Instant::now() + self.idle),
            Some(_) => {
                self.bridge.line.set_busy(false);
                let console = self.bridge.console.borrow().poll_deadline();
                self.bridge.jobs.poll_deadline().into_iter().chain(console).min()
            }
        };
        let event = self.receive(deadline);
        if self.current.is_some() {
            self.bridge.line.set_busy(true);
            let lines = self.bridge.console.borrow_mut().handle_tick(Instant::now());
            self.bridge.show(lines);
        } else {
            // A new task: the host's clock runs since it asked.
            self.bridge.line.busy.set(event.is_ok());
        }
        match event {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // The reader ends the process rather than its sender.
            Err(RecvTimeoutError::Disconnected) => end_group(),
        }
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<Event, RecvTimeoutError> {
        let rests_at = Instant::now() + REST_AFTER;
        if deadline.is_none_or(|at| at > rests_at) {
            match self.events.recv_timeout(REST_AFTER) {
                Err(RecvTimeoutError::Timeout) => rest(),
                other => return other,
            }
        }
        match deadline {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
        }
    }
}

/// Gives back what a waiting script does not need: garbage (Boa by itself collects when a megabyte of it has come together),
/// free heap, what of the stack deep calls needed, and the pages of the interpreter's code.
fn rest() {
    boa_gc::force_collect();
    syscall::trim_allocator();
    // Best effort: whoever waits with all pages mapped waits as well.
    let _ = syscall::release_stack();
    let _ = syscall::release_code_pages();
}

/// Bytes of address space in use (proc_pid_status(5)).
fn address_space() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    size.map(|kb| kb.saturating_mul(1024)).ok_or_else(|| io::Error::other("/proc/self/status is not understood"))
}
