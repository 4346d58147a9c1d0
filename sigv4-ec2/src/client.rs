//! The client: signs, sends, repeats, and reads.
//!
//! It blocks, and holds no thread: two small addresses, the last credentials and one idle connection. Cloning shares them.

use crate::{
    Chain, Clock, Credentials, CredentialsError, Environment, Error, ErrorCode, Source, SystemClock,
    endpoint::{self, Endpoint},
    error,
    form::Form,
    http::{self, Answer},
    reply::{self, Element},
    retry::{self, PATIENCE, Repeat},
    sign::{FORM, Request, Scope, Style, sign},
    time,
};
use std::{
    fmt, fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

const EC2_VERSION: &str = "2016-11-15";
const IAM_VERSION: &str = "2010-05-08";
/// Credentials are renewed so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// EC2 takes five minutes for a wrong clock; what is nearer than this cannot have been the reason.
const SKEW_MIN_SECS: i64 = 4 * 60;
/// Pages of one listing that are read: ten thousand things.
const PAGES_MAX: u32 = 100;

/// Speaks with EC2, and IAM, of one region. Calls block, each for at most [`Client::PATIENCE`] and one attempt's end.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    dry_run: bool,
}

struct Shared {
    agent: ureq::Agent,
    region: String,
    ec2: Endpoint,
    iam: Endpoint,
    source: Box<dyn Source>,
    cached: Mutex<Option<Credentials>>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    /// Seconds that the service's clock is ahead of ours.
    skew_secs: AtomicI64,
}

/// What a client is made of.
#[derive(Debug)]
pub struct Builder {
    region: String,
    ec2: Option<String>,
    iam: Option<String>,
    source: Option<Box<dyn Source>>,
    clock: Arc<dyn Clock>,
    roots: Option<Vec<u8>>,
    environment: Environment,
    profile: Option<String>,
    patience: Duration,
}

impl Builder {
    /// Asks this address instead of Amazon's: `http://127.0.0.1:5000`. For EC2, and for IAM if that has none of its own.
    pub fn endpoint(mut self, url: impl Into<String>) -> Builder {
        self.ec2 = Some(url.into());
        self
    }

    /// Asks this address for IAM.
    pub fn iam_endpoint(mut self, url: impl Into<String>) -> Builder {
        self.iam = Some(url.into());
        self
    }

    /// Where credentials come from, instead of a [`Chain`]; a [`Credentials`] by itself is a source.
    pub fn credentials(mut self, source: impl Source + 'static) -> Builder {
        self.source = Some(Box::new(source));
        self
    }

    /// The profile of `~/.aws` to take credentials from.
    pub fn profile(mut self, name: impl Into<String>) -> Builder {
        self.profile = Some(name.into());
        self
    }

    /// Other variables than the process's: custom addresses, credentials, trusted roots.
    pub fn environment(mut self, environment: Environment) -> Builder {
        self.environment = environment;
        self
    }

    /// How long one call goes on trying, instead of [`Client::PATIENCE`]; at least a second.
    pub fn patience(mut self, patience: Duration) -> Builder {
        self.patience = patience.max(Duration::from_secs(1));
        self
    }

    /// Another clock than the machine's.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Builder {
        self.clock = Arc::new(clock);
        self
    }

    /// Certificates (PEM) that https trusts instead of Mozilla's list.
    pub fn trusted_roots(mut self, pem: impl Into<Vec<u8>>) -> Builder {
        self.roots = Some(pem.into());
        self
    }

    /// Makes the client; asks nobody yet.
    ///
    /// # Errors
    /// [`Error::Setting`] for a malformed region, address or certificate.
    pub fn build(self) -> Result<Client, Error> {
        if !endpoint::is_region(&self.region) {
            return Err(setting(format!("region `{}`", self.region), "a region looks like `eu-central-1`"));
        }
        let variable = |service| self.environment.endpoint(service).map(str::to_owned);
        let iam = self.iam.or_else(|| self.ec2.clone()).or_else(|| variable("IAM"));
        let ec2 = self.ec2.or_else(|| variable("EC2"));
        for url in [&ec2, &iam].into_iter().flatten() {
            let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            if !host.is_some_and(|host| !host.is_empty() && !host.starts_with('/')) {
                return Err(setting(format!("endpoint `{url}`"), "it must begin with http:// or https:// and name a host"));
            }
        }
        let (named, roots) = match (self.roots, self.environment.value("AWS_CA_BUNDLE")) {
            (None, Some(path)) => {
                let named = format!("AWS_CA_BUNDLE={path}");
                (named.clone(), Some(fs::read(path).map_err(|source| setting(named, source))?))
            }
            (roots, _) => ("the trusted roots".to_owned(), roots),
        };
        let agent = http::agent(roots.as_deref(), self.patience).map_err(|source| setting(named, source))?;
        let chain = || Box::new(Chain::new(self.environment, self.profile, Arc::clone(&self.clock)));
        let source = self.source.unwrap_or_else(|| chain());
        let shared = Shared {
            agent,
            ec2: endpoint::ec2(&self.region, ec2.as_deref()),
            iam: endpoint::iam(&self.region, iam.as_deref()),
            region: self.region,
            source,
            cached: Mutex::new(None),
            clock: self.clock,
            patience: self.patience,
            skew_secs: AtomicI64::new(0),
        };
        Ok(Client { shared: Arc::new(shared), dry_run: false })
    }
}

pub(crate) fn setting(setting: String, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Setting { setting, source: source.into() }
}

/// Why one attempt failed, and the server's clock then.
struct Failed {
    error: Error,
    date: Option<SystemTime>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, date: None }
    }
}

impl Client {
    /// How long one call goes on trying, unless [`Builder::patience`] says otherwise.
    pub const PATIENCE: Duration = PATIENCE;

    /// Begins a client for a region. What the builder is not told, the environment says: see [`Environment`].
    pub fn builder(region: impl Into<String>) -> Builder {
        Builder {
            region: region.into(),
            ec2: None,
            iam: None,
            source: None,
            clock: Arc::new(SystemClock::new()),
            roots: None,
            environment: Environment::of_process(),
            profile: None,
            patience: Client::PATIENCE,
        }
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.shared.region
    }

    /// The partition, as ARNs begin: `aws`, `aws-cn`, `aws-us-gov`.
    pub fn partition(&self) -> &'static str {
        endpoint::Partition::of(&self.shared.region).name
    }

    /// The address that is asked for EC2.
    pub fn endpoint(&self) -> &str {
        &self.shared.ec2.url
    }

    /// The same client, whose EC2 calls change nothing: they end with an error, which is [`Error::is_dry_run_passed`]
    /// if the call itself would have been allowed.
    pub fn dry_run(&self) -> Client {
        Client { shared: Arc::clone(&self.shared), dry_run: true }
    }

    pub(crate) fn form(&self, action: &'static str) -> Form {
        let mut form = Form::new(action, EC2_VERSION);
        if self.dry_run {
            form.flag("DryRun", true);
        }
        form
    }

    pub(crate) fn iam_form(&self, action: &'static str) -> Result<Form, Error> {
        if self.dry_run {
            return Err(Error::Parameter { action, wrong: "IAM has no dry run".to_owned() });
        }
        Ok(Form::new(action, IAM_VERSION))
    }

    /// When a call that begins now has lasted as long as it may, on the clock's [`Clock::since_start`].
    pub(crate) fn deadline(&self) -> Duration {
        self.shared.clock.since_start().saturating_add(self.shared.patience)
    }

    /// Asks EC2, and reads the answer with `read`.
    pub(crate) fn ask<V>(&self, form: &Form, repeat: Repeat, read: impl FnOnce(Element<'_, '_>) -> Result<V, Error>) -> Result<V, Error> {
        self.ask_until(self.deadline(), form, repeat, read)
    }

    /// The same, as one of several requests that make one call: they share its deadline.
    pub(crate) fn ask_until<V>(
        &self,
        deadline: Duration,
        form: &Form,
        repeat: Repeat,
        read: impl FnOnce(Element<'_, '_>) -> Result<V, Error>,
    ) -> Result<V, Error> {
        let text = self.call(&self.shared.ec2, form, repeat, deadline)?;
        read(Element::root(form.action(), &reply::parse(form.action(), &text)?))
    }

    /// Asks EC2 for something whose answer says nothing.
    pub(crate) fn tell(&self, form: &Form, repeat: Repeat) -> Result<(), Error> {
        self.ask(form, repeat, |_| Ok(()))
    }

    /// Asks IAM, and reads what is inside `<ActionResult>`, or the answer itself if it has none.
    pub(crate) fn ask_iam<V>(
        &self,
        form: &Form,
        repeat: Repeat,
        read: impl FnOnce(Element<'_, '_>) -> Result<V, Error>,
    ) -> Result<V, Error> {
        let action = form.action();
        let text = self.call(&self.shared.iam, form, repeat, self.deadline())?;
        let document = reply::parse(action, &text)?;
        let root = Element::root(action, &document);
        read(root.child(&format!("{action}Result")).unwrap_or(root))
    }

    /// Asks EC2 for all pages, and hands each to `read`. `size` is the page's, for actions that have one.
    pub(crate) fn pages(
        &self,
        form: &Form,
        size: Option<u32>,
        mut read: impl FnMut(Element<'_, '_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let deadline = self.deadline();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut form = form.clone();
            if let Some(size) = size {
                form.number("MaxResults", size.into());
            }
            form.put_some("NextToken", next.as_deref());
            next = self.ask_until(deadline, &form, Repeat::Harmless, |page| {
                read(page)?;
                Ok(page.string("nextToken"))
            })?;
            if next.is_none() {
                return Ok(());
            }
        }
        Err(Error::TooManyPages { action: form.action(), pages: PAGES_MAX })
    }

    fn call(&self, endpoint: &Endpoint, form: &Form, repeat: Repeat, deadline: Duration) -> Result<String, Error> {
        let clock = &self.shared.clock;
        // Of several requests the earlier ones took all the time.
        if clock.since_start() >= deadline {
            return Err(http::out_of_time(form.action(), endpoint));
        }
        let (mut clock_set, mut renewed) = (false, false);
        let mut attempt = 0;
        loop {
            let Failed { error, date } = match self.attempt(endpoint, form) {
                Ok(text) => return Ok(text),
                Err(failed) => failed,
            };
            let code = error.code();
            if !clock_set && code.is_some_and(ErrorCode::may_be_clock) && date.is_some_and(|date| self.set_clock(date)) {
                clock_set = true;
                continue;
            }
            if !renewed && code.is_some_and(ErrorCode::may_be_expired) {
                renewed = true;
                *self.shared.cached.lock().unwrap_or_else(PoisonError::into_inner) = None;
                continue;
            }
            let left = deadline.saturating_sub(clock.since_start());
            let Some(pause) = retry::pause(&error, repeat, attempt, clock.random(), left) else { return Err(error) };
            clock.sleep(pause);
            attempt += 1;
        }
    }

    fn attempt(&self, endpoint: &Endpoint, form: &Form) -> Result<String, Failed> {
        let action = form.action();
        let at = self.now();
        let credentials = self.credentials(at).map_err(|source| Error::Credentials { action, source })?;
        let request = Request { method: "POST", url: &endpoint.url, headers: &[("content-type", FORM)], body: form.as_bytes() };
        let scope = Scope { region: &endpoint.region, service: endpoint.service, at };
        let signed = sign(&request, &credentials, &scope, Style::default()).map_err(|source| Error::Sign { action, source })?;
        let answer = http::post(&self.shared.agent, action, endpoint, form.as_bytes(), &signed)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.text);
        }
        Err(Failed { error: refusal(action, &answer, &credentials), date: answer.date })
    }

    /// The service's time, as requests hold it.
    pub(crate) fn now_rfc3339(&self) -> String {
        time::rfc3339(self.now())
    }

    /// The service's time, as far as we know it.
    fn now(&self) -> SystemTime {
        let skew = self.shared.skew_secs.load(Ordering::Relaxed);
        let by = Duration::from_secs(skew.unsigned_abs());
        let now = self.shared.clock.now();
        let shifted = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        shifted.unwrap_or(now)
    }

    /// Whether the service's clock is so far from ours that this was the reason; if so, ours is set by it.
    fn set_clock(&self, theirs: SystemTime) -> bool {
        if secs_between(self.now(), theirs).abs() < SKEW_MIN_SECS {
            return false;
        }
        self.shared.skew_secs.store(secs_between(self.shared.clock.now(), theirs), Ordering::Relaxed);
        true
    }

    fn credentials(&self, now: SystemTime) -> Result<Credentials, CredentialsError> {
        // Held while the source is asked: the others need the answer too.
        let mut cached = self.shared.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = |known: &Credentials, at: SystemTime| known.expires.is_none_or(|expires| expires > at);
        match &*cached {
            Some(known) if lives(known, now + RENEW_BEFORE) => return Ok(known.clone()),
            _ => {}
        }
        match self.shared.source.credentials() {
            Ok(fresh) => Ok(cached.insert(fresh).clone()),
            // The old ones are still good for a while, and the next call asks again.
            Err(error) => cached.clone().filter(|known| lives(known, now)).ok_or(error),
        }
    }
}

fn secs_between(from: SystemTime, to: SystemTime) -> i64 {
    let secs = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    to.duration_since(from).map_or_else(|error| -secs(error.duration()), secs)
}

/// Reads `<Errors><Error><Code>` (EC2) or `<Error><Code>` (IAM); what is neither is named by its status.
fn refusal(action: &'static str, answer: &Answer, credentials: &Credentials) -> Error {
    let document = reply::parse(action, &answer.text).ok();
    let root = document.as_ref().map(|document| Element::root(action, document));
    let error = root.and_then(|root| root.at(&["Errors", "Error"]).or_else(|| root.child("Error")));
    let text = |name| error.and_then(|error| error.text(name));
    let code = text("Code").map_or_else(|| ErrorCode::Other(format!("HTTP {}", answer.status)), ErrorCode::parse);
    let message = error::shortened(credentials.hide_in(text("Message").unwrap_or_default()));
    let request_id = root.and_then(|root| root.string("RequestID").or_else(|| root.string("RequestId"))).map(error::shortened);
    Error::Api { action, status: answer.status, code, message, request_id }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Client");
        shown.field("region", &self.shared.region).field("endpoint", &self.shared.ec2.url).field("source", &self.shared.source);
        shown.field("dry_run", &self.dry_run).finish()
    }
}
