use clap::Parser as _;

use crate::costs::Costs;
use crate::simulation::{Cluster, Outcome, Simulation};
use crate::{Cli, holds};

fn costs() -> Costs {
    Costs::read(include_str!("../costs.yaml")).unwrap()
}

/// As large as the costs ask for.
fn cluster(steps_per_s: f64) -> Cluster {
    let (costs, coordinators) = (costs(), 4);
    let whole = |number: f64| format!("{number:.0}").parse().unwrap();
    Cluster {
        coordinators,
        cores_of_a_coordinator: whole(costs.coordinator_cores(steps_per_s, 4.0)),
        shards: 64,
        databases: whole(costs.databases(steps_per_s)),
        writers: 2,
        workers: 20,
        steps_per_s,
        step_ms: 1.0,
    }
}

fn outcome(cluster: &Cluster) -> Outcome {
    Simulation::new(&costs(), cluster, 1).unwrap().run(0.3).unwrap()
}

#[test]
fn what_the_model_allots_carries_what_it_says() {
    let cluster = cluster(60_000.0);
    let outcome = outcome(&cluster);
    assert!(holds(&outcome) && outcome.coordinators_busy < 0.85, "{outcome:?}");
}

#[test]
fn too_few_cores_or_databases_are_noticed() {
    let enough = cluster(200_000.0);
    for small in [Cluster { cores_of_a_coordinator: 1, ..enough.clone() }, Cluster { databases: 1, ..enough }]
    {
        let outcome = outcome(&small);
        assert!(!holds(&outcome), "{small:?}: {outcome:?}");
    }
}

#[test]
fn a_seed_repeats_a_simulation() {
    let cluster = cluster(20_000.0);
    let told = |seed| format!("{:?}", Simulation::new(&costs(), &cluster, seed).unwrap().run(0.1).unwrap());
    assert_eq!(told(1), told(1));
    assert_ne!(told(1), told(2));
}

#[test]
fn twice_the_cores_carry_twice_the_steps() {
    let (small, large) = (costs().carried(100.0), costs().carried(200.0));
    assert!((large.steps_per_s / small.steps_per_s - 2.0).abs() < 1e-9);
    assert!((small.coordinator_cores + small.worker_cores + small.database_cores - 100.0).abs() < 1e-9);
}

#[test]
fn costs_that_say_nothing_are_refused() {
    let text = include_str!("../costs.yaml");
    assert!(Costs::read(&text.replace("commit_ms", "commit_mss")).is_err());
    assert!(Costs::read("worker_us: 1.0").unwrap_err().to_string().contains("missing field"));
    let none = text.lines().map(|line| if line.starts_with("worker_us") { "worker_us: 0.0" } else { line });
    let text = none.collect::<Vec<_>>().join("\n");
    assert!(Costs::read(&text).unwrap_err().to_string().contains("more than 0"));
}

#[test]
fn sizes_that_no_cluster_has_are_refused_by_name() {
    let flags = ["cores", "coordinators", "workers", "shards", "databases", "writers", "coordinator-cores"];
    for flag in flags.into_iter().chain(["steps-per-s", "step-ms", "secs"]) {
        for nonsense in ["0", "many", "-1", "NaN"] {
            let error =
                Cli::try_parse_from(["capacity", &format!("--{flag}={nonsense}")]).unwrap_err().to_string();
            assert!(error.contains(&format!("--{flag}")), "{error}");
        }
    }
    let few = Cli::try_parse_from(["capacity", "--shards", "3"]).unwrap().cluster(&costs()).unwrap_err();
    assert!(few.to_string().contains("--shards"), "{few}");
}
