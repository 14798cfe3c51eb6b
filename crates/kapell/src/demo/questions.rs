//! Questions to a person.
//!
//! Owns: showing a question and taking the answer. Never: guesses what became of a call: `--yes` agrees to work, it
//! does not know what happened outside.
use anyhow::bail;
use kapell_proto::v1;
use kapell_runtime::Runtime;

use super::api::Api;
use super::screen::{Screen, read_answer};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Person {
    /// Whoever sits at the terminal.
    AtTerminal,
    /// Nobody; work is agreed to.
    AgreesToAll,
}

/// Shows the question, takes the answer and hands it in.
pub(super) async fn answer(
    api: &Api,
    question: &v1::Approval,
    person: Person,
    screen: &Screen,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    screen.say(&format!("asked: {}", question.ask));
    screen.say(&format!("       {}", question.show));
    if question.kind == "call_outcome" && person == Person::AgreesToAll {
        bail!("nobody knows whether a call took effect, and only a person can look: {}", question.ask);
    }
    let approved = match person {
        Person::AgreesToAll => true,
        Person::AtTerminal => ask_until_answered(screen, runtime).await?,
    };
    screen.say(match (approved, person) {
        (true, Person::AgreesToAll) => "answer: yes (--yes)",
        (true, Person::AtTerminal) => "answer: yes",
        (false, Person::AgreesToAll | Person::AtTerminal) => {
            "answer: no; the run fails and puts the prices back, so not all rows of the table can be ok"
        }
    });
    let answer = v1::DecideApprovalRequest {
        id: question.id.clone(),
        approved,
        by: "demo".to_owned(),
        reason: "asked by kapell demo".to_owned(),
        result: String::new(),
    };
    match api.decide(answer).await {
        Ok(()) => Ok(()),
        // The list comes from the ledger, which may be behind: it was answered already.
        Err(late) if matches!(late.code(), tonic::Code::FailedPrecondition | tonic::Code::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn ask_until_answered(screen: &Screen, runtime: &Runtime) -> anyhow::Result<bool> {
    loop {
        screen.prompt("          approve? [y/n] ");
        match runtime.blocking(read_answer).await?.to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            // No more input comes: silence is no agreement.
            "n" | "no" | "" => return Ok(false),
            _ => {}
        }
    }
}
