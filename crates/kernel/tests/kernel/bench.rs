//! A run on the bench: a catalogue, the run, and everything that must agree with it after each command.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{
    Accepted, ApprovalAnswer, ApprovalKey, Attempt, CallNo, CallOutcome, Command, Context, Delta, Entry,
    Handled, Order, OrderKey, ParentRef, PlanSource, Rejected, Run, Status, TaskError, TimerKey, UnitId,
    Verdict, accept, evolve, handle, invariants, outstanding,
};
use kapell_kernel::{Ended, ErrorClass};
use kapell_model::catalogue::Catalogue;
use kapell_model::definition::{Definition, EffectClass};
use kapell_model::plan::StepIndex;
use kapell_model::{Json, Name, RequestId, RunId, ShardCount, ShardId, Timestamp};
use serde_json::{Value, json};

/// When every run of these tests is accepted.
pub(crate) const START: Timestamp = Timestamp(1_000_000);

pub(crate) fn document(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "kapell.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The specialists, skills and tools that the tests know.
fn staff() -> Vec<Value> {
    let skill = |name: &str, effect: &str| json!({ "name": name, "effect": effect, "remote": {} });
    let checked = json!({ "name": "do.checked", "effect": "write", "remote": {}, "timeout": "20s",
        "input": { "type": "object" },
        "output": { "type": "object", "required": ["ok"] } });
    let tool = |name: &str, effect: &str| json!({ "name": name, "effect": effect, "idempotency": "natural", "http": { "method": "PUT", "path": "/" } });
    let tools = [tool("get", "read"), tool("set", "write"), tool("fire", "irreversible")];
    let robot = json!({ "tools": ["shop/get", "shop/set", "shop/fire"], "skills": [
        skill("do.read", "read"), skill("do.write", "write"), skill("do.undo", "write"), skill("do.final", "irreversible"), checked,
    ] });
    let bound = |autonomy: &str, skills: [Value; 1]| json!({ "autonomy": autonomy, "skills": skills });
    let suggested = json!({ "name": "help.write", "effect": "write", "remote": {},
        "output": { "type": "object", "required": ["ok"] } });
    vec![
        document("Connector", "shop", json!({ "protocol": "http", "tools": tools })),
        document("Connection", "shop", json!({ "connector": "shop", "endpoint": "http://shop" })),
        document("Specialist", "robot", robot),
        document("Specialist", "helper", bound("suggest", [suggested])),
        document("Specialist", "clerk", bound("approve", [skill("ask.write", "write")])),
    ]
}

/// A sound catalogue of the staff and these documents.
pub(crate) fn catalogue(documents: &[Value]) -> Catalogue {
    let all = staff().into_iter().chain(documents.iter().cloned());
    let definitions: Vec<Definition> =
        all.map(|document| serde_json::from_value(document).unwrap()).collect();
    kapell_model::validate::catalogue(definitions).unwrap_or_else(|wrong| {
        let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        panic!("{said:#?}")
    })
}

pub(crate) fn workflow(spec: &Value) -> Value {
    document("Workflow", "w", spec.clone())
}

/// What to accept it with.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) event: Value,
    pub(crate) key: Option<&'static str>,
    pub(crate) parent: Option<ParentRef>,
    pub(crate) nesting: u32,
    pub(crate) queued: bool,
}

impl Default for Start {
    fn default() -> Start {
        Start { event: json!({ "data": {} }), key: None, parent: None, nesting: 0, queued: false }
    }
}

/// How closely the bench looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// At everything after each command.
    Closely,
    /// Not at all, for large runs; `compare` looks once.
    Away,
}

/// A run and all that must agree with it.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) run: Run,
    /// The same run, from its entries alone.
    shadow: Run,
    /// What is outstanding, folded from the deltas.
    pub(crate) open: BTreeMap<OrderKey, Order>,
    pub(crate) journal: Vec<Entry>,
    accepted: Accepted,
    pub(crate) now: Timestamp,
    pub(crate) looks: Looks,
}

impl Bench {
    /// An accepted run of the workflow of this spec, before its context is known.
    pub(crate) fn accepted(spec: &Value) -> Bench {
        Bench::started(catalogue(&[workflow(spec)]), Start::default())
    }

    /// A run that follows its written steps.
    pub(crate) fn of(spec: &Value) -> Bench {
        Bench::accepted(spec).planned()
    }

    /// The same with further documents.
    pub(crate) fn with(spec: &Value, documents: &[Value]) -> Bench {
        let all: Vec<Value> = documents.iter().cloned().chain([workflow(spec)]).collect();
        Bench::started(catalogue(&all), Start::default()).planned()
    }

    pub(crate) fn started(catalogue: Catalogue, start: Start) -> Bench {
        let (namespace, name) = (Name::default_namespace(), Name::new("w").unwrap());
        let workflow = Arc::clone(catalogue.workflow(&namespace, &name).unwrap());
        let accepted = Accepted {
            workflow,
            key: start.key.map(Arc::from),
            event: Json::of(&start.event),
            parent: start.parent,
            nesting: start.nesting,
            queued: start.queued,
            at: START,
        };
        let id = RunId::new(ShardId(3), 42);
        let (run, delta) = accept(id, accepted.clone());
        let shadow = run.clone();
        let (open, journal) = (BTreeMap::new(), vec![Entry::RunAccepted(Box::new(accepted.clone()))]);
        let catalogue = Arc::new(catalogue);
        let mut bench =
            Bench { catalogue, run, shadow, open, journal, accepted, now: START, looks: Looks::Closely };
        bench.fold(delta);
        bench.compare();
        bench
    }

    /// Gathers nothing and follows the written steps.
    pub(crate) fn planned(mut self) -> Bench {
        self.ok(Command::SupplyContext { context: Json::of(&json!({ "known": 1 })), reasons: vec![] });
        self.ok(Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] });
        self
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { catalogue: &self.catalogue, shards: ShardCount::new(8).unwrap() }
    }

    fn fold(&mut self, delta: Delta) {
        for key in delta.closed {
            assert!(self.open.remove(&key).is_some(), "{key:?} was closed and not open");
        }
        for order in delta.opened {
            let before = self.open.insert(order.key(), order);
            assert!(before.is_none(), "opened twice: {before:?}");
        }
    }

    /// One command at a time of its own.
    pub(crate) fn tell_at(&mut self, at: Timestamp, command: Command) -> Result<Vec<Entry>, Rejected> {
        let catalogue = Arc::clone(&self.catalogue);
        let context = Context { catalogue: &catalogue, shards: ShardCount::new(8).unwrap() };
        let before = (self.looks == Looks::Closely).then(|| self.run.clone());
        let answer = handle(&mut self.run, at, command.clone(), &context);
        if let Some(before) = before {
            let mut again = before.clone();
            let twin = handle(&mut again, at, command, &context);
            match (&answer, twin) {
                (Ok(handled), Ok(twin)) => {
                    assert_eq!((&handled.entries, &handled.delta), (&twin.entries, &twin.delta));
                    assert!(again == self.run, "handled twice, two states");
                }
                (Err(refused), twin) => {
                    assert_eq!(Some(refused), twin.err().as_ref());
                    assert!(before == self.run, "a refusal changed the run");
                }
                (Ok(_), Err(refused)) => panic!("handled once, then refused: {refused}"),
            }
        }
        let Handled { entries, delta } = answer?;
        self.fold(delta);
        for entry in &entries {
            evolve(&mut self.shadow, entry);
        }
        self.journal.extend(entries.iter().cloned());
        if self.looks == Looks::Closely {
            self.compare();
        }
        Ok(entries)
    }

    pub(crate) fn tell(&mut self, command: Command) -> Result<Vec<Entry>, Rejected> {
        self.tell_at(self.now, command)
    }

    /// A command that must be accepted.
    pub(crate) fn ok(&mut self, command: Command) -> Vec<Entry> {
        let said = format!("{command:?}");
        self.tell(command).unwrap_or_else(|refused| panic!("{said} was refused: {refused}"))
    }

    /// A command that must be refused.
    pub(crate) fn refused(&mut self, command: Command) -> Rejected {
        let said = format!("{command:?}");
        self.tell(command).err().unwrap_or_else(|| panic!("{said} was accepted"))
    }

    /// Everything that must agree.
    pub(crate) fn compare(&self) {
        let told: BTreeMap<OrderKey, Order> =
            outstanding(&self.run).into_iter().map(|order| (order.key(), order)).collect();
        assert!(told.keys().eq(self.open.keys()), "told {:?}\nfolded {:?}", told.keys(), self.open.keys());
        for (told, folded) in told.values().zip(self.open.values()) {
            assert_eq!(without_progress(told), without_progress(folded));
        }
        invariants::check(&self.run).unwrap_or_else(|broken| panic!("{broken}\n{:?}", self.run.steps()));
        assert!(self.run == self.shadow, "the entries alone give another run");
        assert!(self.run.ended().is_some() || !told.is_empty(), "stuck");
        let context = self.context();
        let more = kapell_kernel::advance(&self.run, self.now, &context);
        assert!(more.is_empty(), "not handled to its end: {more:?}");
    }

    /// Goes on with the run as a checkpoint gives it back.
    pub(crate) fn restore(&mut self) {
        let image = self.run.to_image();
        let restored = Run::from_image(image.clone()).unwrap_or_else(|bad| panic!("{bad}"));
        assert!(restored.to_image() == image, "a checkpoint gives another run back");
        (self.run, self.shadow) = (restored.clone(), restored);
        self.compare();
    }

    /// The run from its whole journal is this run.
    pub(crate) fn replay(&self) {
        let (mut run, _) = accept(self.run.id, self.accepted.clone());
        for entry in &self.journal[1..] {
            evolve(&mut run, entry);
        }
        assert!(run.to_image() == self.run.to_image(), "the journal gives another run");
    }

    pub(crate) fn unit(&self, id: UnitId) -> &kapell_kernel::Unit {
        self.run.unit(id).unwrap_or_else(|| panic!("no {id:?}"))
    }

    pub(crate) fn status(&self, id: UnitId) -> &Status {
        &self.unit(id).status
    }

    pub(crate) fn ended(&self) -> &Ended {
        self.run.ended().unwrap_or_else(|| panic!("it goes on with {:?}", self.open.keys()))
    }

    pub(crate) fn has(&self, key: OrderKey) -> bool {
        self.open.contains_key(&key)
    }

    pub(crate) fn timer(&self, key: TimerKey) -> Timestamp {
        match &self.open[&OrderKey::Timer(key)] {
            Order::SetTimer { at, .. } => *at,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a timer and fires it.
    pub(crate) fn fire(&mut self, key: TimerKey) -> Vec<Entry> {
        self.now = self.now.max(self.timer(key));
        self.ok(Command::FireTimer(key))
    }

    // The commands of the tests, in short.

    pub(crate) fn follow(&mut self, unit: UnitId) {
        let attempt = self.unit(unit).attempt.next();
        self.ok(verdict(unit, attempt, Verdict::Follow));
    }

    pub(crate) fn finish(&mut self, unit: UnitId, output: &Value) {
        let attempt = self.unit(unit).attempt;
        self.ok(finished(unit, attempt, Ok(Json::of(output))));
    }

    pub(crate) fn fail(&mut self, unit: UnitId, class: ErrorClass) {
        let attempt = self.unit(unit).attempt;
        self.ok(finished(unit, attempt, Err(TaskError::new(class, "it broke"))));
    }

    /// Judges if need be, then finishes.
    pub(crate) fn work(&mut self, unit: UnitId, output: &Value) {
        if *self.status(unit) == Status::Judging {
            self.follow(unit);
        }
        self.finish(unit, output);
    }

    pub(crate) fn intend(&mut self, unit: UnitId, no: u32) -> Vec<Entry> {
        let attempt = self.unit(unit).attempt;
        self.ok(intended(unit, attempt, no, json!({ "n": no })))
    }

    pub(crate) fn call_ends(&mut self, unit: UnitId, no: u32, outcome: CallOutcome) {
        let attempt = self.unit(unit).call(CallNo(no)).unwrap().attempt;
        self.ok(Command::FinishCall { unit, no: CallNo(no), attempt, outcome });
    }

    /// Intends call 0 and lets it succeed.
    pub(crate) fn call(&mut self, unit: UnitId) {
        self.intend(unit, 0);
        self.call_ends(unit, 0, CallOutcome::Succeeded(Json::of(&json!("called"))));
    }

    pub(crate) fn answer(&mut self, key: ApprovalKey, approved: bool, result: Option<Value>) {
        self.ok(answered(key, approved, result));
    }
}

/// What a dispatched task has kept since does not count.
fn without_progress(order: &Order) -> Order {
    let mut order = order.clone();
    if let Order::Dispatch(dispatch) = &mut order {
        dispatch.checkpoints.clear();
    }
    order
}

pub(crate) fn one(step: u32) -> UnitId {
    UnitId::step(StepIndex(step))
}

pub(crate) fn item(step: u32, item: u32) -> UnitId {
    UnitId::item(StepIndex(step), item)
}

pub(crate) fn verdict(unit: UnitId, attempt: Attempt, verdict: Verdict) -> Command {
    Command::GiveVerdict { unit, attempt, verdict, reasons: vec!["because".into()] }
}

pub(crate) fn finished(unit: UnitId, attempt: Attempt, result: Result<Json, TaskError>) -> Command {
    Command::FinishTask { unit, attempt, result }
}

pub(crate) fn intended(unit: UnitId, attempt: Attempt, no: u32, args: Value) -> Command {
    let (tool, effect) = ("shop/set".parse().unwrap(), EffectClass::Write);
    Command::IntendCall { unit, attempt, no: CallNo(no), tool, args: Json::of(&args), effect }
}

pub(crate) fn answered(key: ApprovalKey, approved: bool, result: Option<Value>) -> Command {
    let result = result.map(|result| Json::of(&result));
    Command::DecideApproval {
        key,
        answer: ApprovalAnswer { approved, by: "ann".into(), reason: "hm".into(), result },
    }
}

pub(crate) fn unknown() -> CallOutcome {
    CallOutcome::Unknown { reason: "the line went dead".into() }
}

pub(crate) fn event(of_type: &str, subject: &str) -> Json {
    Json::of(&json!({ "type": of_type, "subject": subject, "data": {} }))
}

pub(crate) fn cancel(mode: kapell_kernel::CancelMode) -> Command {
    Command::Cancel { by: "ann".into(), reason: "enough".into(), mode }
}

pub(crate) fn pause() -> Command {
    Command::Pause { by: "ann".into(), reason: "wait".into() }
}

pub(crate) fn resume() -> Command {
    Command::Resume { by: "ann".into() }
}

pub(crate) fn once(name: &str, command: Command) -> Command {
    Command::Once { request: RequestId::of(name), command: Box::new(command) }
}

pub(crate) fn retry() -> Command {
    Command::Retry { by: "ann".into() }
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
