//! The functions of a script that are Rust: the way to the host, timers, the console, and the two helpers
//! (`fetch`, `run`). `prelude.js` makes of them what scripts see.
//!
//! A request that takes time is a number, a promise, and its two resolving functions kept here; whoever has the
//! answer sends an [`Event`] with that number. So no Rust future and no borrow of the engine waits anywhere.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    env,
    rc::Rc,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use boa_engine::{
    Context, JsArgs, JsError, JsNativeError, JsResult, JsString, JsValue, NativeFunction,
    builtins::promise::ResolvingFunctions,
    js_string,
    object::{
        FunctionObjectBuilder, JsObject,
        builtins::{JsFunction, JsPromise},
    },
};
use serde_json::Value;

use super::{
    child::{Event, Line},
    console::Console,
    engine::describe,
    fetch,
    frame::{Mode, ToHost},
    jobs::Jobs,
    lane::Lane,
    run, spec,
};
use crate::model::limits::{
    EVERY_MS_MIN, FETCHES_MAX, NODES_MAX, REGISTRATIONS_MAX, SCRIPT_REQUESTS_MAX, SCRIPT_VALUE_DEPTH_MAX, TASKS_MAX,
};

/// What the native functions share. One per process, reached through the context's data.
pub struct Bridge {
    pub jobs: Rc<Jobs>,
    pub line: Line,
    pub mode: Cell<Mode>,
    pub console: RefCell<Console>,
    events: Sender<Event>,
    requests: RefCell<BTreeMap<u64, Request>>,
    last_request: Cell<u64>,
    pub fetches: Lane,
    pub commands: Lane,
    rehearsal: bool,
    started: Instant,
}

struct Request {
    /// `cluster.scale()`, `fetch()`: for the person.
    what: String,
    resolvers: ResolvingFunctions,
}

impl Bridge {
    pub fn new(jobs: Rc<Jobs>, line: Line, events: Sender<Event>, commands_max: usize, rehearsal: bool) -> Bridge {
        Bridge {
            jobs,
            line,
            mode: Cell::new(Mode::Client),
            console: RefCell::default(),
            events,
            requests: RefCell::default(),
            last_request: Cell::new(0),
            fetches: Lane::new(FETCHES_MAX),
            commands: Lane::new(commands_max),
            rehearsal,
            started: Instant::now(),
        }
    }

    /// Whether an answer of the host, a fetch or a run is awaited.
    pub fn waits_for_requests(&self) -> bool {
        !self.requests.borrow().is_empty()
    }

    /// Resolves the promise of request `id`; one that was forgotten meanwhile changes nothing.
    ///
    /// # Errors
    /// Only the engine's own.
    pub fn settle(&self, id: u64, result: Result<Value, String>, context: &mut Context) -> JsResult<()> {
        let Some(Request { resolvers, .. }) = self.requests.borrow_mut().remove(&id) else { return Ok(()) };
        let (function, value) = match result {
            Ok(value) => (resolvers.resolve, JsValue::from_json(&value, context)?),
            Err(reason) => (resolvers.reject, JsString::from(reason.as_str()).into()),
        };
        function.call(&JsValue::undefined(), &[value], context).map(|_| ())
    }

    /// A hook is over; answers that come later belong to nobody.
    pub fn forget_requests(&self) {
        self.requests.take();
    }

    pub fn show(&self, lines: super::console::Lines) {
        for (level, text) in lines {
            self.line.send(&ToHost::Console { level: level.to_owned(), text });
        }
    }

    fn request(&self, what: String, context: &mut Context) -> JsResult<(u64, JsPromise)> {
        let mut requests = self.requests.borrow_mut();
        if requests.len() == SCRIPT_REQUESTS_MAX {
            let first = requests.values().next().map_or("", |r| r.what.as_str());
            return Err(JsNativeError::range()
                .with_message(format!("{what}: {SCRIPT_REQUESTS_MAX} others still wait for their result ({first} is the first)"))
                .into());
        }
        let (promise, resolvers) = JsPromise::new_pending(context);
        self.last_request.set(self.last_request.get() + 1);
        requests.insert(self.last_request.get(), Request { what, resolvers });
        Ok((self.last_request.get(), promise))
    }
}

/// The shape Boa asks for.
type Native = fn(&JsValue, &[JsValue], &mut Context) -> JsResult<JsValue>;

fn bridge(context: &Context) -> Rc<Bridge> {
    context.get_data::<Rc<Bridge>>().expect("engine.rs puts it in before the first script").clone()
}

/// The object that `prelude.js` gets.
///
/// # Errors
/// Only the engine's own.
pub fn native(context: &mut Context) -> JsResult<JsObject> {
    let native = JsObject::with_object_proto(context.intrinsics());
    let functions: [(&str, Native); 12] = [
        ("host", host),
        ("fetch", fetch_url),
        ("run", run_program),
        ("set_timer", set_timer),
        ("clear_timer", clear_timer),
        ("now", now),
        ("console", console),
        ("env", environment),
        ("mode", mode),
        ("check_service", check_service),
        ("check_key", check_key),
        ("display", display),
    ];
    for (name, function) in functions {
        let function = FunctionObjectBuilder::new(context.realm(), NativeFunction::from_fn_ptr(function)).name(js_string!(name)).build();
        native.set(js_string!(name), function, true, context)?;
    }
    for (name, limit) in [("nodes_max", NODES_MAX), ("tasks_max", TASKS_MAX), ("registrations_max", REGISTRATIONS_MAX)] {
        native.set(js_string!(name), i32::try_from(limit).expect("limits.rs keeps it small"), true, context)?;
    }
    native.set(js_string!("every_ms_min"), EVERY_MS_MIN, true, context)?;
    Ok(native)
}

/// `host(op, JSON of the arguments)`: a promise of the host's answer.
fn host(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (op, bridge) = (string(args, 0, context)?, bridge(context));
    let args = json(args, 1, context)?;
    let (id, promise) = bridge.request(format!("{op}()"), context)?;
    if let Err(e) = bridge.line.try_send(&ToHost::Operation { id, op: op.clone(), args }) {
        bridge.settle(id, Err(format!("{op}(): {e}")), context)?;
    }
    Ok(promise.into())
}

/// Begins what happens outside of the script and the host: a promise of how it ends.
fn outside(what: &str, context: &mut Context, begin: impl FnOnce(&Bridge, u64)) -> JsResult<JsValue> {
    let bridge = bridge(context);
    let (id, promise) = bridge.request(what.to_owned(), context)?;
    if bridge.rehearsal {
        bridge.settle(id, Err(format!("{what} is not done while `disco plan` only rehearses")), context)?;
    } else {
        begin(&bridge, id);
    }
    Ok(promise.into())
}

fn fetch_url(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let request = json(args, 0, context)?;
    outside("fetch()", context, |bridge, id| {
        let events = bridge.events.clone();
        bridge.fetches.start(Box::new(move || fetch::start(request, move |result| drop(events.send(Event::Fetched { id, result })))));
    })
}

fn run_program(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let request = json(args, 0, context)?;
    outside("run()", context, |bridge, id| {
        let events = bridge.events.clone();
        bridge.commands.start(Box::new(move || run::start(request, move |result| drop(events.send(Event::Ran { id, result })))));
    })
}

fn set_timer(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let body = args.get_or_undefined(0).as_object().and_then(JsFunction::from_object);
    let body = body.ok_or_else(|| JsNativeError::typ().with_message("a timer needs a function"))?;
    let ms = args.get_or_undefined(1).to_number(context)?;
    // NaN and negative numbers are "now", as browsers have it; a year is for ever.
    let delay = Duration::from_secs_f64((ms / 1000.0).clamp(0.0, 366.0 * 86_400.0).max(0.0));
    bridge(context).jobs.set_timer(body, delay, Instant::now()).map(JsValue::from)
}

fn clear_timer(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let id = args.get_or_undefined(0).to_u32(context)?;
    bridge(context).jobs.clear_timer(id);
    Ok(JsValue::undefined())
}

/// Milliseconds since the process began, by a clock that never jumps.
fn now(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    Ok(JsValue::from(bridge(context).started.elapsed().as_secs_f64() * 1000.0))
}

fn console(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let level = match string(args, 0, context)?.as_str() {
        "info" => "info",
        "warn" => "warn",
        "error" => "error",
        "debug" => "debug",
        _ => "log",
    };
    let bridge = bridge(context);
    let words: Vec<String> = args.iter().skip(1).map(|value| shown(value, context)).collect();
    let lines = bridge.console.borrow_mut().handle_line(level, words.join(" "), Instant::now());
    bridge.show(lines);
    Ok(JsValue::undefined())
}

fn shown(value: &JsValue, context: &mut Context) -> String {
    if let Some(text) = value.as_string() {
        return text.to_std_string_lossy();
    }
    if value.as_object().is_some_and(|object| object.is::<boa_engine::builtins::error::Error>()) {
        let trouble = describe(JsError::from_opaque(value.clone()), context);
        return if trouble.stack.is_empty() { trouble.message } else { format!("{}\n{}", trouble.message, trouble.stack) };
    }
    value.display().to_string()
}

fn environment(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let variables = JsObject::with_object_proto(context.intrinsics());
    for (name, value) in env::vars_os() {
        // What is not UTF-8 cannot be told to a script.
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            variables.create_data_property(JsString::from(name.as_str()), JsString::from(value.as_str()), context)?;
        }
    }
    Ok(variables.into())
}

/// `client`, `recording` or `live`.
fn mode(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let mode = match bridge(context).mode.get() {
        Mode::Client => js_string!("client"),
        Mode::Recording => js_string!("recording"),
        Mode::Live => js_string!("live"),
    };
    Ok(mode.into())
}

/// `check_service(name, JSON of the spec)`: throws what is wrong with it, while the caller's line is still on the stack.
/// Two specs that mean the same give the same text.
fn check_service(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (name, spec) = (string(args, 0, context)?, json(args, 1, context)?);
    let spec = spec::parse(&name, &spec).map_err(|why| JsNativeError::typ().with_message(why))?;
    Ok(JsString::from(format!("{spec:?}").as_str()).into())
}

/// `check_key(key)`, `check_key(key, value)`: throws what is wrong with them.
fn check_key(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let key = string(args, 0, context)?;
    let checked = match args.get(1) {
        Some(_) => spec::check_value(&key, &string(args, 1, context)?),
        None => spec::check_key(&key),
    };
    checked.map_err(|why| JsNativeError::range().with_message(why))?;
    Ok(JsValue::undefined())
}

/// A value as the console shows it.
fn display(_: &JsValue, args: &[JsValue], _: &mut Context) -> JsResult<JsValue> {
    Ok(JsString::from(args.get_or_undefined(0).display().to_string().as_str()).into())
}

fn string(args: &[JsValue], index: usize, context: &mut Context) -> JsResult<String> {
    Ok(args.get_or_undefined(index).to_string(context)?.to_std_string_lossy())
}

/// An argument that is JSON text. Bounded in depth here, where the script still gets an error it can catch.
fn json(args: &[JsValue], index: usize, context: &mut Context) -> JsResult<Value> {
    let text = string(args, index, context)?;
    let value = serde_json::from_str(&text).map_err(|e| JsNativeError::typ().with_message(format!("cannot pass these arguments: {e}")))?;
    check_depth(&value, 0).map_err(|why| JsNativeError::range().with_message(why))?;
    Ok(value)
}

/// # Errors
/// It nests deeper than [`SCRIPT_VALUE_DEPTH_MAX`].
pub fn check_depth(value: &Value, depth: usize) -> Result<(), String> {
    if depth > SCRIPT_VALUE_DEPTH_MAX {
        return Err(format!("a value is nested deeper than {SCRIPT_VALUE_DEPTH_MAX} levels"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, depth + 1)),
        Value::Object(fields) => fields.values().try_for_each(|item| check_depth(item, depth + 1)),
        _ => Ok(()),
    }
}
