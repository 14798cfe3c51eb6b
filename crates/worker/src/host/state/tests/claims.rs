//! Tasks that follow their shards: claims in every order in which they can come.
use kapell_proto::v1::{CheckpointAck, Claim, Disowned, ShardClaim};
use kapell_wire::claim::{ShardClaim as Owned, claim_to};

use super::*;

/// All tasks of these tests are of this shard.
const SHARD: ShardId = ShardId(0);

fn claim_of(state: &mut State, from: SessionNo, shards: &[(u16, u64)]) -> Vec<String> {
    let claims: Vec<Owned> =
        shards.iter().map(|(shard, epoch)| Owned { shard: ShardId(*shard), epoch: Epoch(*epoch) }).collect();
    told(&say(state, from, Said::Claim(claim_to(&claims))))
}

fn claim(state: &mut State, from: SessionNo, epoch: u64) -> Vec<String> {
    claim_of(state, from, &[(SHARD.0, epoch)])
}

/// What was said to whom, in short.
fn told(effects: &Effects) -> Vec<String> {
    assert!(effects.stop.is_empty(), "nothing is stopped: {:?}", effects.stop);
    let number = |task: &Option<kapell_proto::v1::TaskRef>| {
        let named = TaskKey::from_proto(task.as_ref()).unwrap();
        (0..100).find(|at| key(*at) == named).unwrap()
    };
    let short = |(to, message): &(SessionNo, WorkerMessage)| {
        let what = match message.kind.as_ref().unwrap() {
            Kind::Holding(holding) => {
                let tasks: Vec<u32> = holding.tasks.iter().map(|task| number(&Some(task.clone()))).collect();
                format!("holds {tasks:?} of {:?}", holding.shards)
            }
            Kind::Tool(request) => format!("asks {} for {}", request.no, number(&request.task)),
            Kind::Checkpoint(checkpoint) => format!("keeps for {}", number(&checkpoint.task)),
            Kind::Report(report) => format!("reports {}", number(&report.task)),
            Kind::Hello(_) | Kind::Heartbeat(_) | Kind::Quarantine(_) | Kind::Draining(_) => "other".into(),
        };
        format!("{}: {what}", to.0)
    };
    effects.send.iter().map(short).collect()
}

fn assign_under(state: &mut State, from: SessionNo, at: u32, epoch: u64) -> Effects {
    let assignment = Assignment {
        task: Some(key(at).to_proto()),
        namespace: "retail".into(),
        skill: "desk.nothing".into(),
        input: "{}".into(),
        epoch,
        ..Assignment::default()
    };
    say(state, from, Said::Assignment(assignment))
}

/// Task 1 waits for a tool call, task 2 for a checkpoint, task 3 has ended; the first coordinator assigned them.
fn busy() -> (State, oneshot::Receiver<Result<String, TaskError>>, oneshot::Receiver<()>) {
    let mut state = state(10);
    assert_eq!(claim(&mut state, ONE, 5), ["0: holds [] of [0]"]);
    (1..=3).for_each(|at| drop(assign_under(&mut state, ONE, at, 5)));
    let (answer, result) = oneshot::channel();
    let request = ToolRequest { task: Some(key(1).to_proto()), no: 0, tool: "a/b".into(), args: "1".into() };
    state.call(request, key(1), answer, &mut Effects::default());
    let (answer, kept) = oneshot::channel();
    let checkpoint = Checkpoint { task: Some(key(2).to_proto()), position: 0, data: "1".into() };
    state.checkpoint(checkpoint, key(2), answer, &mut Effects::default());
    end(&mut state, 3, Ok("3".into()));
    (state, result, kept)
}

const ALL: [&str; 4] = ["1: holds [1, 2, 3] of [0]", "1: asks 0 for 1", "1: keeps for 2", "1: reports 3"];

fn tool_result(at: u32, output: &str) -> Said {
    let result = Some(tool_result::Result::Output(output.into()));
    Said::ToolResult(ToolResult { task: Some(key(at).to_proto()), no: 0, result })
}

#[test]
fn a_claim_brings_the_tasks_of_the_shard_home_with_all_that_is_unanswered() {
    let (mut state, mut result, mut kept) = busy();
    assert_eq!(claim(&mut state, TWO, 6), ALL);
    assert_eq!((state.tasks.counts(ONE), state.tasks.counts(TWO).unacknowledged), (Counts::default(), 1));
    say(&mut state, ONE, tool_result(1, "stale"));
    assert!(result.try_recv().is_err(), "the old owner may refuse what the new one allows");
    say(&mut state, TWO, tool_result(1, "true"));
    assert_eq!(result.try_recv().unwrap(), Ok("true".into()));
    let ack = CheckpointAck { task: Some(key(2).to_proto()), position: 0 };
    say(&mut state, ONE, Said::CheckpointAck(ack));
    assert!(kept.try_recv().is_ok(), "what is on disk is on disk, whoever says so");
    assert_eq!(told(&end(&mut state, 1, Ok("1".into()))), ["1: reports 1"], "later reports go there");
}

#[test]
fn an_owner_that_loaded_its_shard_anew_hears_what_it_may_have_missed() {
    let (mut state, _result, _kept) = busy();
    assert_eq!(claim(&mut state, ONE, 5), ALL.map(|said| said.replacen("1:", "0:", 1)));
    claim(&mut state, TWO, 6);
    assert_eq!(claim(&mut state, TWO, 6), ALL);
    state.disconnected(TWO);
    assert_eq!(state.connected(TWO).len(), 4, "a new connection begins with all that is unanswered");
    let restarted = claim(&mut state, TWO, 7);
    assert_eq!(restarted, ["1: holds [1, 2, 3] of [0]"], "which was heard, for the shard was there before");
}

#[test]
fn an_owner_that_lost_its_shard_and_has_it_again_hears_what_it_may_have_missed() {
    let (mut state, _result, _kept) = busy();
    // In between it was another's, which never reached this worker.
    assert_eq!(claim(&mut state, ONE, 7), ALL.map(|said| said.replacen("1:", "0:", 1)));
}

#[test]
fn a_stale_claim_is_passed_over_whenever_it_comes() {
    let (mut state, _result, _kept) = busy();
    assert_eq!(
        claim(&mut state, TWO, 4),
        [""; 0],
        "it is not answered: what it holds is none of its business"
    );
    claim(&mut state, TWO, 6);
    assert_eq!(claim(&mut state, ONE, 5), [""; 0]);
    assert_eq!(told(&end(&mut state, 1, Ok("1".into()))), ["1: reports 1"]);
    assert_eq!(claim_of(&mut state, ONE, &[(SHARD.0, 5), (3, 1)]), ["0: holds [] of [3]"], "others are");
    let bad = Claim { shards: vec![ShardClaim { shard: 70_000, epoch: 9 }] };
    assert!(say(&mut state, ONE, Said::Claim(bad)).send.is_empty(), "and nonsense ends nothing");
}

#[test]
fn an_owner_that_does_not_know_yet_that_it_lost_the_shard_begins_and_stops_nothing() {
    let (mut state, _result, _kept) = busy();
    claim(&mut state, TWO, 6);
    let late = assign_under(&mut state, ONE, 4, 5);
    assert!(
        late.run.is_empty() && late.send.is_empty(),
        "a report would end what the new owner began: {late:?}"
    );
    assert!(told(&assign_under(&mut state, ONE, 1, 5)).is_empty());
    assert!(say(&mut state, ONE, Said::Cancel(key(1).to_proto())).stop.is_empty());
    assert_eq!(told(&end(&mut state, 1, Ok("1".into()))), ["1: reports 1"], "it did not get it back");
    assert_eq!(assign_under(&mut state, TWO, 4, 6).run.len(), 1);
    assert_eq!(assign_under(&mut state, ONE, 5, 0).run.len(), 1, "one from before epochs does not say");
    assert_eq!(assign_under(&mut state, ONE, 6, 7).run.len(), 1, "a newer one has it again");
}

#[test]
fn a_lost_lease_does_not_stop_what_another_coordinator_has_claimed() {
    let (mut state, _result, _kept) = busy();
    claim(&mut state, TWO, 6);
    drop(assign_under(&mut state, ONE, 9, 0));
    let mut effects = Effects::default();
    state.lease_lost(ONE, &mut effects);
    assert_eq!(effects.stop, [(SpecialistNo(0), key(9))], "only what is still its own");
    assert_eq!(told(&end(&mut state, 1, Ok("1".into()))), ["1: reports 1"]);
    let mut effects = Effects::default();
    state.lease_lost(TWO, &mut effects);
    assert_eq!(effects.stop, [(SpecialistNo(0), key(2))], "and the new owner's lease does");
    let again = claim(&mut state, ONE, 1);
    assert_eq!(again, ["0: holds [1, 3] of [0]", "0: reports 1", "0: reports 3"], "a store that began anew");
}

#[test]
fn a_report_that_is_under_way_while_its_shard_moves_is_given_to_both_and_forgotten_once_it_is_on_disk() {
    let (mut state, _result, _kept) = busy();
    assert!(claim(&mut state, TWO, 6).contains(&"1: reports 3".to_owned()), "the first one may be lost");
    // The old owner passed its copy on, and it is on disk.
    say(&mut state, ONE, Said::ReportAck(key(3).to_proto()));
    assert_eq!(state.held(), 2);
    say(&mut state, TWO, Said::ReportAck(key(3).to_proto()));
    assert_eq!((state.held(), state.tasks.counts(TWO).unacknowledged), (2, 0));
}

#[test]
fn a_report_outlives_a_cancelation_until_it_is_acknowledged() {
    let (mut state, _result, _kept) = busy();
    // The coordinator took the report, forgot the task, and sees it in the answer to its claim.
    assert!(say(&mut state, ONE, Said::Cancel(key(3).to_proto())).stop.is_empty());
    // What it took is lost with it: the next owner must hear the report.
    assert!(claim(&mut state, TWO, 6).contains(&"1: reports 3".to_owned()));
    say(&mut state, TWO, Said::ReportAck(key(3).to_proto()));
    assert_eq!(state.held(), 2);
}

#[test]
fn tasks_that_came_or_went_with_their_shard_take_no_room() {
    let mut state = state(2);
    claim(&mut state, ONE, 5);
    (1..=2).for_each(|at| drop(assign_under(&mut state, ONE, at, 5)));
    assert_eq!(error_of(&assign_under(&mut state, ONE, 3, 5)), ErrorClass::Unavailable);
    say(&mut state, ONE, Said::Disowned(Disowned { shards: vec![7] }));
    assert_eq!(error_of(&assign_under(&mut state, ONE, 3, 5)), ErrorClass::Unavailable, "another shard");
    say(&mut state, ONE, Said::Disowned(Disowned { shards: vec![u32::from(SHARD.0)] }));
    (3..=4).for_each(|at| assert_eq!(assign_under(&mut state, ONE, at, 0).run.len(), 1));
    assert_eq!(error_of(&assign_under(&mut state, ONE, 5, 0)), ErrorClass::Unavailable, "filled again");
    assert_eq!(claim(&mut state, TWO, 6), ["1: holds [1, 2, 3, 4] of [0]"]);
    assert_eq!(state.tasks.counts(TWO).running, 0, "the claimer's own room is what it gave out itself");
    (5..=6).for_each(|at| assert_eq!(assign_under(&mut state, TWO, at, 6).run.len(), 1));
    (1..=6).for_each(|at| drop(end(&mut state, at, Ok("1".into()))));
    assert_eq!((state.tasks.counts(ONE).running, state.tasks.counts(TWO).running), (0, 0));
}

#[test]
fn the_first_claim_of_a_connection_is_the_whole_truth() {
    let (mut state, _result, _kept) = busy();
    assert_eq!(state.tasks.counts(ONE).running, 2);
    state.disconnected(ONE);
    state.connected(ONE);
    // It was restarted, and its shard is elsewhere: what it said before does not count any more.
    assert_eq!(claim_of(&mut state, ONE, &[(3, 8)]), ["0: holds [] of [3]"]);
    assert_eq!(state.tasks.counts(ONE).running, 0);
    assert_eq!(claim(&mut state, TWO, 1).len(), 4, "even under an epoch that is lower");
    assert_eq!(claim_of(&mut state, ONE, &[(4, 8)]), ["0: holds [] of [4]"], "the next ones are added");
    assert_eq!(claim_of(&mut state, TWO, &[(3, 7)]), [""; 0]);
}

#[test]
fn a_long_answer_comes_in_parts_and_names_the_shards_with_the_last() {
    let mut state = state(u32::MAX);
    let many = HOLDING_TASKS_MAX as u32 + 1;
    (0..many).for_each(|at| drop(assign(&mut state, ONE, at)));
    let claims = [Owned { shard: SHARD, epoch: Epoch(1) }];
    let said = say(&mut state, TWO, Said::Claim(claim_to(&claims)));
    let parts: Vec<(usize, usize)> = said
        .send
        .iter()
        .map(|(_, message)| match &message.kind {
            Some(Kind::Holding(holding)) => (holding.tasks.len(), holding.shards.len()),
            other => panic!("no answer but {other:?}"),
        })
        .collect();
    assert_eq!(parts, [(HOLDING_TASKS_MAX, 0), (1, 1)]);
}
