//! One script in one Boa context: load the module, call its hooks, say what went wrong and where.
//!
//! There is one engine per process and it is never dropped: Boa gives memory of a loaded module back only when the
//! process ends. Nothing here limits what a script does, because Boa can't: the child's rlimit and the host's clock do.

use std::{path::Path, rc::Rc};

use boa_engine::{
    Context, JsError, JsNativeError, JsResult, JsString, JsValue, Source,
    builtins::promise::PromiseState,
    context::ContextBuilder,
    js_string,
    object::{
        JsObject,
        builtins::{JsFunction, JsPromise},
    },
    property::PropertyKey,
};
use serde_json::Value;

use super::{
    bindings::{self, Bridge},
    console,
    frame::{Arg, Mode, Modules, Target},
    jobs::Hooks,
    modules::Loader,
};
use crate::model::limits::SCRIPT_PRINTED_BYTES_MAX;

const PRELUDE: &str = include_str!("prelude.js");
/// How stack lines of `prelude.js` are told from the person's.
const PRELUDE_NAME: &str = "disco:prelude";
/// ... and of what `disco eval` was given.
const EXPRESSION_NAME: &str = "disco:eval";
/// A thrown string may be megabytes long; nobody reads more than this.
const MESSAGE_BYTES_MAX: usize = 4096;
const STACK_LINES_SHOWN: usize = 12;

/// What a person gets to see of an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub message: String,
    /// Lines of the person's own files, innermost first; may be empty.
    pub stack: String,
}

impl Trouble {
    fn new(message: impl Into<String>) -> Trouble {
        Trouble { message: message.into(), stack: String::new() }
    }
}

pub struct Engine {
    context: Context,
    bridge: Rc<Bridge>,
    loader: Rc<Loader>,
    prelude: Prelude,
    exports: Option<JsObject>,
    cluster: Option<JsValue>,
}

/// What `prelude.js` gives to us rather than to scripts.
struct Prelude {
    options_of: JsFunction,
    encode: JsFunction,
    declared: JsFunction,
    registered: JsFunction,
    plain_cluster: JsFunction,
    print: JsFunction,
    named: JsFunction,
}

/// How far a load or a hook is.
pub enum Progress {
    Running,
    Returned(JsValue),
    Failed(Trouble),
}

impl Engine {
    /// # Errors
    /// Only if `prelude.js` is wrong, which the tests would show.
    pub fn new(bridge: Rc<Bridge>, modules: Modules) -> JsResult<Engine> {
        let loader = Rc::new(Loader::new(modules));
        let mut context = ContextBuilder::new()
            .job_executor(Rc::clone(&bridge.jobs))
            .host_hooks(Rc::new(Hooks(Rc::clone(&bridge.jobs))))
            .module_loader(Rc::clone(&loader))
            .can_block(false)
            .build()?;
        context.insert_data(Rc::clone(&bridge));
        let native = bindings::native(&mut context)?;
        let prelude = context.eval(Source::from_bytes(PRELUDE).with_path(Path::new(PRELUDE_NAME)))?;
        let made = function(&prelude)?.call(&JsValue::undefined(), &[native.into()], &mut context)?;
        let made = object(&made)?;
        let modules = object(&made.get(js_string!("modules"), &mut context)?)?;
        for key in modules.own_property_keys(&mut context)? {
            let exports = object(&modules.get(key.clone(), &mut context)?)?;
            loader.register(&key.to_string(), &exports, &mut context)?;
        }
        let mut part = |name: &str| function(&made.get(js_string!(name), &mut context)?);
        let prelude = Prelude {
            options_of: part("options_of")?,
            encode: part("encode")?,
            declared: part("declared")?,
            registered: part("registered")?,
            plain_cluster: part("plain_cluster")?,
            print: part("print")?,
            named: part("named")?,
        };
        Ok(Engine { context, bridge, loader, prelude, exports: None, cluster: None })
    }

    /// Begins to evaluate a module; `progress` says how it goes, `hooks` what came of it.
    ///
    /// # Errors
    /// The file can't be read or parsed.
    pub fn load(&mut self, file: &str) -> Result<JsPromise, Trouble> {
        let module = self.loader.load(file, &mut self.context).map_err(|e| describe(e, &mut self.context))?;
        let promise = module.load_link_evaluate(&mut self.context);
        self.exports = None;
        self.cluster = None;
        self.run_jobs()?;
        if matches!(promise.state(), PromiseState::Fulfilled(_) | PromiseState::Pending) {
            self.exports = Some(module.namespace(&mut self.context));
        }
        Ok(promise)
    }

    /// Names of the exported functions of the loaded module.
    pub fn hooks(&mut self) -> Vec<String> {
        let Some(exports) = self.exports.clone() else { return Vec::new() };
        let keys = exports.own_property_keys(&mut self.context).unwrap_or_default();
        let mut is_function = |key: &PropertyKey| exports.get(key.clone(), &mut self.context).is_ok_and(|v| v.is_callable());
        keys.iter().filter(|key| matches!(key, PropertyKey::String(_))).filter(|key| is_function(key)).map(ToString::to_string).collect()
    }

    /// Calls what `target` says; its promise (or value) is watched with `progress` and taken with `result`.
    ///
    /// # Errors
    /// There is no such thing, no cluster to pass, or it threw before its first `await`.
    pub fn call(&mut self, target: &Target, args: Vec<Arg>, mode: Mode) -> Result<JsPromise, Trouble> {
        let function = match target {
            Target::Hook(name) => match self.exported(name)? {
                None if mode == Mode::Client || name == "init" => {
                    return Err(Trouble::new(format!("there is no exported function {name}()")));
                }
                function => function,
            },
            Target::Configure => self.exported("configure")?,
            Target::Registered(number) => Some(self.registered(*number)?),
            Target::Expression { text, cluster } => return self.evaluate(text, cluster),
        };
        let context = &mut self.context;
        let mut values = Vec::new();
        for arg in args {
            values.push(match arg {
                Arg::Json(json) => {
                    let value = JsValue::from_json(&json, context).map_err(|e| describe(e, context))?;
                    self.prelude.named.call(&JsValue::undefined(), &[value], context).map_err(|e| describe(e, context))?
                }
                Arg::Handle => self.cluster.clone().ok_or_else(|| Trouble::new("init() has not returned a cluster yet"))?,
            });
        }
        let returned = match function {
            Some(function) => function.call(&JsValue::undefined(), &values, context).map_err(|e| describe(e, context))?,
            None => JsValue::undefined(),
        };
        JsPromise::resolve(returned, context).map_err(|e| describe(e, context))
    }

    fn exported(&mut self, name: &str) -> Result<Option<JsFunction>, Trouble> {
        let exports = self.exports.clone().ok_or_else(|| Trouble::new("no module is loaded"))?;
        Ok(exports.get(js_string!(name), &mut self.context).ok().and_then(|v| v.as_object()).and_then(JsFunction::from_object))
    }

    fn registered(&mut self, number: u32) -> Result<JsFunction, Trouble> {
        let context = &mut self.context;
        let body = self.prelude.registered.call(&JsValue::undefined(), &[number.into()], context).map_err(|e| describe(e, context))?;
        function(&body).map_err(|_| Trouble::new("the script registers less than it did before"))
    }

    /// An expression if it can be one, else statements (`return` gives their value).
    fn evaluate(&mut self, text: &str, cluster: &str) -> Result<JsPromise, Trouble> {
        let context = &mut self.context;
        let mut names = vec!["cluster".to_owned()];
        let mut values = vec![match &self.cluster {
            Some(cluster) => cluster.clone(),
            None => {
                let name = JsString::from(cluster).into();
                self.prelude.plain_cluster.call(&JsValue::undefined(), &[name], context).map_err(|e| describe(e, context))?
            }
        }];
        if let Some(exports) = &self.exports {
            for key in exports.own_property_keys(context).map_err(|e| describe(e, context))? {
                let PropertyKey::String(name) = &key else { continue };
                let name = name.to_std_string_lossy();
                // `export { x as class }` is a name that cannot be a parameter's.
                if name != "cluster" && context.eval(Source::from_bytes(&format!("(async ({name}) => 0)"))).is_ok() {
                    values.push(exports.get(key.clone(), context).map_err(|e| describe(e, context))?);
                    names.push(name);
                }
            }
        }
        let names = names.join(", ");
        let mut parse = |source: String| context.eval(Source::from_bytes(&source).with_path(Path::new(EXPRESSION_NAME)));
        let function = match parse(format!("(async ({names}) => (\n{text}\n))")) {
            Ok(expression) => Ok(expression),
            Err(_) => parse(format!("(async ({names}) => {{\n{text}\n}})")),
        };
        let function = function.map_err(|e| describe(e, context))?;
        let function = self::function(&function).map_err(|e| describe(e, context))?;
        let returned = function.call(&JsValue::undefined(), &values, context).map_err(|e| describe(e, context))?;
        JsPromise::resolve(returned, context).map_err(|e| describe(e, context))
    }

    /// Runs all that can run now, then looks how far `own` is.
    pub fn progress(&mut self, own: &JsPromise) -> Progress {
        if let Err(trouble) = self.run_jobs() {
            return Progress::Failed(trouble);
        }
        if let Some(reason) = self.bridge.jobs.take_unhandled(Some(own)) {
            let mut trouble = describe(JsError::from_opaque(reason), &mut self.context);
            trouble.message = format!("a promise was rejected and nothing handles it (is an `await` missing?): {}", trouble.message);
            return Progress::Failed(trouble);
        }
        match own.state() {
            PromiseState::Pending => Progress::Running,
            PromiseState::Fulfilled(value) => Progress::Returned(value),
            PromiseState::Rejected(reason) => Progress::Failed(describe(JsError::from_opaque(reason), &mut self.context)),
        }
    }

    /// What a call came to, as JSON (`undefined` is null). What init() returns stays here, for [`Arg::Handle`];
    /// the options of that cluster are the result.
    ///
    /// # Errors
    /// init() returned something else than a cluster, or a value has no JSON.
    pub fn result(&mut self, target: &Target, value: JsValue, mode: Mode) -> Result<Value, Trouble> {
        let is_init = matches!(target, Target::Hook(name) if name == "init");
        let encoder = match target {
            Target::Hook(_) if is_init => &self.prelude.options_of,
            Target::Hook(_) if mode == Mode::Client => &self.prelude.encode,
            Target::Configure => &self.prelude.declared,
            Target::Expression { .. } => &self.prelude.print,
            Target::Hook(_) | Target::Registered(_) => return Ok(Value::Null),
        };
        let text = encoder
            .call(&JsValue::undefined(), std::slice::from_ref(&value), &mut self.context)
            .map_err(|e| describe(e, &mut self.context))?;
        let text = text.as_string().map(|text| text.to_std_string_lossy());
        if let Target::Expression { .. } = target {
            let mut printed = text.unwrap_or_default();
            console::truncate(&mut printed, SCRIPT_PRINTED_BYTES_MAX);
            return Ok(printed.into());
        }
        if is_init {
            if text.is_none() {
                return Err(Trouble::new(format!("init() must return a Cluster, not {}", shortened(value.display().to_string()))));
            }
            self.cluster = Some(value);
        }
        let json: Value = serde_json::from_str(text.as_deref().unwrap_or("null"))
            .map_err(|e| Trouble::new(format!("the result cannot be passed on: {e}")))?;
        bindings::check_depth(&json, 0).map_err(Trouble::new)?;
        Ok(json)
    }

    /// # Errors
    /// Only the engine's own.
    pub fn settle(&mut self, id: u64, result: Result<Value, String>) -> Result<(), Trouble> {
        let bridge = Rc::clone(&self.bridge);
        bridge.settle(id, result, &mut self.context).map_err(|e| describe(e, &mut self.context))
    }

    fn run_jobs(&mut self) -> Result<(), Trouble> {
        let jobs = Rc::clone(&self.bridge.jobs);
        jobs.run(&mut self.context).map_err(|e| describe(e, &mut self.context))
    }
}

fn object(value: &JsValue) -> JsResult<JsObject> {
    value.as_object().ok_or_else(|| JsNativeError::typ().with_message("prelude.js: an object was expected").into())
}

fn function(value: &JsValue) -> JsResult<JsFunction> {
    object(value).and_then(|f| {
        JsFunction::from_object(f).ok_or_else(|| JsNativeError::typ().with_message("prelude.js: a function was expected").into())
    })
}

/// `TypeError: x is not a function` and the person's own lines of the stack.
pub fn describe(error: JsError, context: &mut Context) -> Trouble {
    let value = match error.into_opaque(context) {
        Ok(value) => value,
        // The engine's own limits (recursion) can't become a value; they print themselves with their stack.
        Err(engine) => {
            let text = engine.to_string();
            let (message, stack) = text.split_once('\n').unwrap_or((&text, ""));
            return Trouble { message: shortened(message.to_owned()), stack: own_lines(stack) };
        }
    };
    let Some(error) = value.as_object().filter(JsObject::is::<boa_engine::builtins::error::Error>) else {
        let thrown = value.as_string().map_or_else(|| value.display().to_string(), |text| text.to_std_string_lossy());
        return Trouble::new(shortened(thrown));
    };
    // Getters of the script may throw or lie here; an empty word is the worst that comes of it.
    let mut word = |key: &str| {
        error.get(js_string!(key), context).ok().and_then(|v| v.as_string().map(|s| s.to_std_string_lossy())).unwrap_or_default()
    };
    let (name, message, stack) = (word("name"), word("message"), word("stack"));
    let message = match (name.as_str(), message.as_str()) {
        (name, "") => name.to_owned(),
        ("", message) => message.to_owned(),
        (name, message) => format!("{name}: {message}"),
    };
    let mut trouble = Trouble { message: shortened(message), stack: own_lines(&stack) };
    if name == "ReferenceError" {
        place_unknown_name(&mut trouble, context);
    }
    trouble
}

/// Boa keeps no place for a name that is not defined, and shows the one of whatever ran before in the same function.
/// That is the commonest mistake there is, so look in the text: the name's first mention from there on.
fn place_unknown_name(trouble: &mut Trouble, context: &Context) {
    let word = trouble.message.strip_prefix("ReferenceError: ").and_then(|m| m.strip_suffix(" is not defined"));
    let first = trouble.stack.lines().next().unwrap_or_default();
    let place = first.rsplit_once('(').map_or(first.trim_start().trim_start_matches("at "), |(_, place)| place.trim_end_matches(')'));
    let mut parts = place.split(':');
    let file = parts.next().unwrap_or_default();
    let from = (number(parts.next()), number(parts.next()));
    let found = word.zip(context.downcast_module_loader::<Loader>()).and_then(|(word, loader)| loader.find(file, word, from));
    if let Some((line, column)) = found {
        trouble.stack = trouble.stack.replacen(place, &format!("{file}:{line}:{column}"), 1);
    }
}

fn number(text: Option<&str>) -> usize {
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Leaves out lines of the engine and of `prelude.js`: a person can change neither.
fn own_lines(stack: &str) -> String {
    let own: Vec<String> = stack
        .lines()
        .filter(|line| {
            !line.contains("(native") && !line.contains(PRELUDE_NAME) && !line.contains(EXPRESSION_NAME) && !line.trim().is_empty()
        })
        .map(without_name)
        .collect();
    let mut shown = own.iter().take(STACK_LINES_SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if own.len() > STACK_LINES_SHOWN {
        shown += &format!("\n    … {} more", own.len() - STACK_LINES_SHOWN);
    }
    shown
}

/// The module's top level and functions without a name are both `<main> (file:line:column)` to Boa: the place is enough.
/// A place that Boa does not know (`:?:?`) is only the file.
fn without_name(line: &str) -> String {
    let line = line.replace(":?:?", "");
    match line.split_once("<main> (") {
        Some((before, place)) => format!("{before}{}", place.trim_end_matches(')')),
        None => line,
    }
}

fn shortened(mut text: String) -> String {
    console::truncate(&mut text, MESSAGE_BYTES_MAX);
    text
}
