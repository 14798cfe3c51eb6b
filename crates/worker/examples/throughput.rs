//! Measures how many small tasks a worker does in a second.
//!
//! The coordinator is the one of the tests, on a thread of its own; the worker has one thread, so its CPU time is
//! what one core can do. Run it with `cargo run --release -p kapell-worker --example throughput`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement stops at the first failure")]
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/worker/support.rs"]
mod support;

use std::time::Duration;

use kapell_kernel::Attempt;
use kapell_model::Json;
use kapell_proto::v1::coordinator_message::Kind as Said;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::{ToolResult, tool_result};
use kapell_runtime::Runtime;
use kapell_worker::{Agent, TaskContext, TaskError, Worker, WorkerOptions};
use serde_json::json;
use support::{Coordinator, Peer, assignment, definitions, task, terms};
use tokio::time::Instant;

const CAPACITY: u32 = 1_000;

struct Nothing;

impl Agent for Nothing {
    async fn run(&self, _: TaskContext) -> Result<Json, TaskError> {
        Ok(Json::null())
    }
}

fn main() {
    let of = |name: &str| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(name).enable_all().build().unwrap()
    };
    let (coordinators, workers) = (of("coordinator"), of("worker"));
    coordinators.block_on(async {
        let mut terms = terms();
        terms.definitions = definitions(1, json!({"concurrency": CAPACITY}));
        let mut coordinator = Coordinator::start(terms).await;
        let mut options = WorkerOptions::new("w1").with_agent("retail/desk.work", Nothing).unwrap();
        options.coordinators = vec![coordinator.address.clone()];
        options.capacity = CAPACITY;
        let worker = workers.spawn_start(options);
        let mut peer = coordinator.session().await;
        println!("skill          tasks      tasks/s   worker CPU us/task   tasks per CPU second");
        for (skill, count) in [
            ("desk.nothing", 300_000),
            ("desk.work", 200_000),
            ("desk.double", 100_000),
            ("desk.lookup", 100_000),
        ] {
            measure(&mut peer, skill, count / 20).await;
            let (began, cpu) = (Instant::now(), cpu_of_worker());
            measure(&mut peer, skill, count).await;
            let (wall, cpu) = (began.elapsed(), cpu_of_worker() - cpu);
            println!(
                "{skill:<12} {count:>7} {:>12.0} {:>20.2} {:>22.0}",
                f64::from(count) / wall.as_secs_f64(),
                cpu.as_secs_f64() * 1e6 / f64::from(count),
                f64::from(count) / cpu.as_secs_f64(),
            );
        }
        drop(worker);
    });
    workers.shutdown_background();
}

trait SpawnStart {
    fn spawn_start(&self, options: WorkerOptions) -> kapell_worker::WorkerHandle;
}

impl SpawnStart for tokio::runtime::Runtime {
    /// Starts the worker on this runtime while another one is entered.
    fn spawn_start(&self, options: WorkerOptions) -> kapell_worker::WorkerHandle {
        std::thread::scope(|scope| {
            scope.spawn(|| self.block_on(Worker::start(options, Runtime::system())).unwrap()).join().unwrap()
        })
    }
}

/// Does `count` tasks, always as many at once as the worker takes.
async fn measure(peer: &mut Peer, skill: &str, count: u32) {
    let template = assignment(task(0), skill, &json!({"n": 1}));
    let (mut begun, mut ended, mut credit) = (0, 0, CAPACITY);
    let mut said = Vec::new();
    while ended < count {
        let mut out: Vec<Said> = Vec::new();
        while credit > 0 && begun < count {
            let mut next = template.clone();
            next.task = Some(task(begun).to_proto());
            next.task.as_mut().unwrap().attempt = Attempt(1).0;
            out.push(Said::Assignment(next));
            (begun, credit) = (begun + 1, credit - 1);
        }
        for kind in said.drain(..) {
            match kind {
                Kind::Report(report) => {
                    (ended, credit) = (ended + 1, credit + 1);
                    out.push(Said::ReportAck(report.task.unwrap()));
                }
                Kind::Tool(request) => {
                    let result = Some(tool_result::Result::Output("{}".into()));
                    out.push(Said::ToolResult(ToolResult { task: request.task, no: request.no, result }));
                }
                Kind::Hello(_)
                | Kind::Checkpoint(_)
                | Kind::Heartbeat(_)
                | Kind::Quarantine(_)
                | Kind::Draining(_)
                | Kind::Holding(_) => {}
            }
        }
        if !out.is_empty() {
            peer.say_all(out).await;
        }
        if ended < count {
            peer.next_many(&mut said).await;
        }
    }
}

/// CPU time of the worker's thread, in steps of 10 ms.
fn cpu_of_worker() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = 0;
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        if name == "worker" {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            ticks += fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
        }
    }
    TICK * ticks
}
