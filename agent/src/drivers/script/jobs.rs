//! What a script has still to run: promise reactions, timers, and the rejections nobody looked at.
//!
//! Boa only enqueues. Its own executor spins while something is pending; ours runs what can run and returns, and
//! the child then sleeps until a timer or an event. No future of Boa's ever waits: loading a module reads a file
//! and is done, and everything slow (the host, `fetch`, `run`) is a promise that an event resolves.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    pin::pin,
    rc::Rc,
    task::{Context as TaskContext, Poll, Waker},
    time::{Duration, Instant},
};

use boa_engine::{
    Context, JsError, JsNativeError, JsResult, JsValue,
    builtins::promise::{OperationType, Promise, PromiseState},
    context::HostHooks,
    job::{GenericJob, Job, JobExecutor, NativeAsyncJob, PromiseJob},
    object::{
        JsObject,
        builtins::{JsFunction, JsPromise},
    },
};

use crate::model::limits::SCRIPT_TIMERS_MAX;

/// Enough to report one; a script that rejects thousands must not make us remember them.
const REJECTIONS_KEPT: usize = 64;

#[derive(Default)]
pub struct Jobs {
    reactions: RefCell<VecDeque<PromiseJob>>,
    generic: RefCell<VecDeque<GenericJob>>,
    loads: RefCell<VecDeque<NativeAsyncJob>>,
    /// By time, then in the order they were set.
    timers: RefCell<BTreeMap<(Instant, u32), JsFunction>>,
    last_timer: Cell<u32>,
    rejections: RefCell<Vec<JsObject<Promise>>>,
}

impl JobExecutor for Jobs {
    fn enqueue_job(self: Rc<Self>, job: Job, _: &mut Context) {
        match job {
            Job::PromiseJob(job) => self.reactions.borrow_mut().push_back(job),
            Job::GenericJob(job) => self.generic.borrow_mut().push_back(job),
            Job::AsyncJob(job) => self.loads.borrow_mut().push_back(job),
            // Clean-up jobs never complete, and Boa makes no timers of its own (ours are `set_timer`).
            _ => {}
        }
    }

    fn run_jobs(self: Rc<Self>, context: &mut Context) -> JsResult<()> {
        self.run_ready(context)
    }
}

impl Jobs {
    /// Runs until nothing is left that could run now. An endless promise chain never returns; the host's clock ends it.
    ///
    /// # Errors
    /// What a timer's function threw: nobody can catch it.
    pub fn run(&self, context: &mut Context) -> JsResult<()> {
        loop {
            self.run_ready(context)?;
            let Some(due) = self.take_due() else { return Ok(()) };
            due.call(&JsValue::undefined(), &[], context)?;
        }
    }

    fn run_ready(&self, context: &mut Context) -> JsResult<()> {
        loop {
            // Each statement ends its own borrow: a job enqueues more.
            let reaction = self.reactions.borrow_mut().pop_front();
            if let Some(job) = reaction {
                job.call(context)?;
                continue;
            }
            let load = self.loads.borrow_mut().pop_front();
            if let Some(job) = load {
                poll_load(job, context)?;
                continue;
            }
            let generic = self.generic.borrow_mut().pop_front();
            if let Some(job) = generic {
                job.call(context)?;
                continue;
            }
            context.clear_kept_objects();
            return Ok(());
        }
    }

    // ---- timers

    /// Calls `body` after `delay`. The number cancels it.
    ///
    /// # Errors
    /// A `RangeError` when too many are pending.
    pub fn set_timer(&self, body: JsFunction, delay: Duration, now: Instant) -> JsResult<u32> {
        let mut timers = self.timers.borrow_mut();
        if timers.len() == SCRIPT_TIMERS_MAX {
            return Err(JsNativeError::range().with_message(format!("more than {SCRIPT_TIMERS_MAX} timers are pending")).into());
        }
        self.last_timer.set(self.last_timer.get().wrapping_add(1));
        let id = self.last_timer.get();
        timers.insert((now + delay, id), body);
        Ok(id)
    }

    pub fn clear_timer(&self, id: u32) {
        self.timers.borrow_mut().retain(|(_, known), _| *known != id);
    }

    pub fn poll_deadline(&self) -> Option<Instant> {
        self.timers.borrow().keys().next().map(|(at, _)| *at)
    }

    fn take_due(&self) -> Option<JsFunction> {
        let mut timers = self.timers.borrow_mut();
        let first = timers.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }

    // ---- rejections

    /// The reason of a rejected promise that has no handler, now that everything that could add one has run.
    /// `own` is the hook's own promise, which the caller looks at.
    pub fn take_unhandled(&self, own: Option<&JsPromise>) -> Option<JsValue> {
        self.rejections.take().into_iter().map(JsObject::upcast).find_map(|object| {
            let promise = JsPromise::from_object(object).ok()?;
            if own.is_some_and(|own| JsObject::equals(own, &promise)) {
                return None;
            }
            match promise.state() {
                PromiseState::Rejected(reason) => Some(reason),
                _ => None,
            }
        })
    }

    /// A hook is over: what it left behind does not run into the next one.
    pub fn clear(&self) {
        self.reactions.take();
        self.generic.take();
        self.loads.take();
        self.timers.take();
        self.rejections.take();
    }
}

/// Module loads finish the first time they are asked (see above).
fn poll_load(job: NativeAsyncJob, context: &mut Context) -> JsResult<()> {
    let context = RefCell::new(context);
    let future = pin!(job.call(&context));
    match future.poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.map(|_| ()),
        Poll::Pending => Err(JsError::from(JsNativeError::error().with_message("a module load waits for something"))),
    }
}

/// Tells [`Jobs`] about rejections; handlers added later take their promise out again.
pub struct Hooks(pub Rc<Jobs>);

impl HostHooks for Hooks {
    fn promise_rejection_tracker(&self, promise: &JsObject<Promise>, operation: OperationType, _: &mut Context) {
        let mut rejections = self.0.rejections.borrow_mut();
        match operation {
            OperationType::Handle => rejections.retain(|known| !JsObject::equals(known, promise)),
            OperationType::Reject if rejections.len() < REJECTIONS_KEPT => rejections.push(promise.clone()),
            OperationType::Reject => {}
        }
    }
}
